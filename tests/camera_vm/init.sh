#!/bin/bash
# The first process of the small machine. Its root is the host's, read-only; it gives the job a copy-on-write view of it
# with devices of its own, loads the camera driver, runs the job as root and powers off.
#
# From the kernel's command line: job=SCRIPT, ko=FILE, out=FOLDER (seen as /out, written through), which holds the
# module's options, one a line, in module_options.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
read -r line < /proc/cmdline
for word in $line; do
  case $word in
    job=*) job=${word#*=} ;;
    out=*) out=${word#*=} ;;
    ko=*) ko=${word#*=} ;;
  esac
done

layer=/mnt
mount -t tmpfs -o size=80% layer $layer
mkdir $layer/changes $layer/work $layer/root
root=$layer/root
mount -t overlay -o "lowerdir=/,upperdir=$layer/changes,workdir=$layer/work" overlay $root || echo "no overlay on /"

mount -t proc proc $root/proc
mount -t sysfs sys $root/sys
mount -t devtmpfs dev $root/dev
mkdir -p $root/dev/shm $root/dev/pts $root/out
for place in dev/shm run; do mount -t tmpfs tmpfs $root/$place; done
mount -t devpts devpts $root/dev/pts
ln -s /proc/self/fd $root/dev/fd
for number in 0 1 2; do
  name=(stdin stdout stderr)
  ln -s /proc/self/fd/$number "$root/dev/${name[$number]}"
done
mount -t hostfs -o "$out" out $root/out

ip link set lo up
mapfile -t options < "$out/module_options"
insmod "$ko" "${options[@]}" || echo "the driver was not loaded"
HOME=/run XDG_RUNTIME_DIR=/run TMPDIR=/run chroot $root /bin/bash "$job"
echo $? > $root/out/status
sync
echo o > /proc/sysrq-trigger
sleep 10
