#!/bin/sh
# Stands in for the program of this name while the tests' packages are installed: nothing is started.
exit 0
