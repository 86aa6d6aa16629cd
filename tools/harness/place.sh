# SPDX-License-Identifier: GPL-2.0-only
# Sourced by bash: where a checkout, and what is kept outside it, can lie. tools/prepare asks
# before it does anything, so that every tool does; docs/testing.md has the table.

# What a guest mounts something of its own over (init.sh), so that it does not see the host's.
hidden_from_guests=(/dev /proc /run /sys)
# What the root of Debian 13 has of its own, in which modules for Linux 7 are built (in-root.sh).
hidden_from_builds=(/etc /usr)
longest_place=200

# The file system that a path lies on, or will.
mount_options() {
	local there=$1
	until [ -e "$there" ]; do there=$(dirname "$there"); done
	findmnt --noheadings --first-only --output OPTIONS --target "$there"
}

# why_not WHAT PATH: say in a sentence why WHAT cannot lie there; nothing if it can.
why_not() {
	local LC_ALL=C what=$1 path=$2 top
	if [ "${path#/}" = "$path" ]; then
		echo "$what cannot be at '$path': name an absolute path"
		return
	fi
	path=$(realpath -m -- "$path")
	# The kernel's makefiles pass paths through make and a shell without any quotes.
	case $path in
	*[!A-Za-z0-9/._+@~$'\200'-$'\377'-]*)
		echo "the kernel's makefiles cannot build in '$path': move $what to a path of" \
			"letters, digits and . _ + - @ ~"
		return
		;;
	esac
	if ! iconv -f UTF-8 -t UTF-8 <<<"$path" >/dev/null 2>&1; then
		echo "the path '$path' is no UTF-8: move $what to one that is"
		return
	fi
	if [ ${#path} -gt "$longest_place" ]; then
		echo "$path is too long: move $what to a path of at most $longest_place bytes"
		return
	fi
	for top in "${hidden_from_guests[@]}"; do
		if [ "$path" = "$top" ] || [ "${path#"$top"/}" != "$path" ]; then
			echo "$path cannot be seen by guests, which have a $top of their own: move $what to" \
				"another place"
			return
		fi
	done
	for top in "${hidden_from_builds[@]}"; do
		if [ "$path" = "$top" ] || [ "${path#"$top"/}" != "$path" ]; then
			echo "$path cannot be seen by Debian 13's compiler, which has a $top of its own: move" \
				"$what to another place"
			return
		fi
	done
	case ,$(mount_options "$path"), in
	*,noexec,*)
		echo "$path is on a file system that is mounted noexec: move $what, of which programs" \
			"are run, to another one"
		;;
	*,ro,*) echo "$path is on a file system that is mounted read-only: move $what to another one" ;;
	esac
}
