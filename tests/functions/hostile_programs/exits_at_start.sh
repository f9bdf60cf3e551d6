#!/bin/sh
# Is gone before it can be asked anything.
exit 3
