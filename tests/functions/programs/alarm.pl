# An exec function in Perl: publishes an alarm for what is hotter than 80 degrees.
use strict;
use warnings;
$| = 1;
while (my $line = <STDIN>) {
    my ($id) = $line =~ /^\{"id":(\d+)/;
    my ($topic) = $line =~ /"topic":"([^"]*)"/;
    if ($line =~ /"c":(-?[\d.]+)/ && $1 > 80) {
        print qq({"publish":"alarm/$topic","payload":"$1 degrees","qos":0,"content_type":"text/plain"}\n);
    }
    print qq({"id":$id}\n);
}
