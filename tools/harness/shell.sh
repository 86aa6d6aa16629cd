# SPDX-License-Identifier: GPL-2.0-only
# Run by bash in a guest that a person looks at: load what is built, say what is there.
here=$(dirname "$(readlink -f "$0")")
build=$here/../../build/$(uname -r)
echo 4 >/proc/sys/kernel/printk
modprobe -q dm-mod
for module in $(find "$build" -name '*.ko' 2>/dev/null | sort); do
	modprobe -q -a $(modinfo -F depends "$module" | tr , ' ')
	insmod "$module" && echo "loaded $(basename "$module")"
done
echo 7 >/proc/sys/kernel/printk
echo
echo "Linux $(uname -r). The host's files are here, read-only below a memory disk."
echo "Disks:"
/usr/bin/python3 -I -S -B "$here/agent.py" disks | sed 's/^/  /'
echo "There is no udevd: run 'dmsetup mknodes' after dmsetup create or remove."
echo "Leave with 'exit', or Ctrl-A X."
export PS1='guest:\w# '
exec bash --norc -i
