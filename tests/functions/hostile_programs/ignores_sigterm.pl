#!/usr/bin/perl
# Hears no signal that can be ignored, and leaves a grandchild in a session of its own that writes on; for a minute.
use strict;
use POSIX ();
$| = 1;
my $line = <STDIN> or exit 0;
for my $name (keys %SIG) {
    $SIG{$name} = 'IGNORE';
}
my $until = time + 60;
if (!fork) {
    POSIX::setsid();
    if (!fork) {
        while (time < $until) {
            open(my $file, '>', 'alive') or die;
            print $file time;
            close($file);
            print STDERR "deaf\n";
            select(undef, undef, undef, 0.02);
        }
    }
    POSIX::_exit(0);
}
sleep 1 while time < $until;
