#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# check-build.sh LINUX DM GCC CLANG CC: print "ok" if dm-remap can be built for a kernel, or else
# why not, in one sentence. LINUX is its version; DM, GCC and CLANG are what its configuration
# says as CONFIG_BLK_DEV_DM, _GCC_VERSION and _CLANG_VERSION; CC is the compiler. Called by Kbuild,
# because a compiler says the same in a hundred lines. DM_REMAP_UNSUPPORTED=1 in the environment
# is somebody who insists.
set -eu
linux=$1 dm=$2 gcc=${3:-0} clang=${4:-0} cc=$5
. "${0%/*}/supported.mk"

refuse() {
	echo "$*"
	exit
}

# code 6.12: a number by which versions are compared, 6012.
code() {
	major=${1%%.*}
	minor=${1#*.}
	echo $((major * 1000 + ${minor%%.*}))
}

insist="make it with DM_REMAP_UNSUPPORTED=1 to try all the same"
[ -n "$dm" ] || refuse "Linux $linux has no device mapper: it needs CONFIG_BLK_DEV_DM"
if [ -z "${DM_REMAP_UNSUPPORTED:-}" ]; then
	[ "$(code "$linux")" -ge "$(code "$LINUX_OLDEST")" ] ||
		refuse "Linux $linux is older than $LINUX_OLDEST, the oldest that is supported; $insist"
	[ "$(code "$linux")" -le "$(code "$LINUX_NEWEST")" ] ||
		refuse "Linux $linux is newer than $LINUX_NEWEST, the newest that this was tested on; $insist"
fi

# CONFIG_GCC_VERSION is 120200 for 12.2.0. Newer compilers than the kernel's know its options, so
# these are not refused; Kbuild itself warns of another one.
if [ "$clang" != 0 ]; then
	name=clang major=$((clang / 10000)) use="LLVM=1"
else
	name=gcc major=$((gcc / 10000)) use="CC=gcc-$((gcc / 10000))"
fi
said=$($cc --version 2>/dev/null) ||
	refuse "Linux $linux was built by $name $major, and '${cc# }' cannot be run: install $name-$major"
case $said in
*clang*) found=clang ;;
*) found=gcc ;;
esac
[ "$found" = "$name" ] ||
	refuse "Linux $linux was built by $name $major and not by $found: install that and make it with $use"
version=$($cc -dumpversion)
[ "${version%%.*}" -ge "$major" ] ||
	refuse "Linux $linux was built by $name $major, and '${cc# }' is $name $version: install $name-$major and make it with $use"
echo ok
