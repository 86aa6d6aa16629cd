#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# in-root.sh ROOT COMMAND...: run a command with the programs of another Debian: its /usr and
# /etc are put over this machine's, all else stays where it is. In a mount namespace of its own,
# which goes with the command, whatever becomes of that: nothing has to be unmounted.
set -eu
root=$1
shift
# /bin, /sbin and /lib are links into /usr, there and here.
exec unshare --mount sh -euc '
	mount --bind "$0/usr" /usr
	mount --bind "$0/etc" /etc
	exec "$@"
' "$root" "$@"
