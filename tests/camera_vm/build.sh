#!/usr/bin/env bash
# Builds the small machine in which cameras are real: a User Mode Linux kernel with V4L2 and ALSA's loopback card, and
# two versions of v4l2loopback for it, all from Debian's source packages.
#
#   build.sh FOLDER      result: FOLDER/linux, FOLDER/v4l2loopback-VERSION.ko, FOLDER/complete (written last)
#
# Needs root on a Debian with apt, network, a C compiler's tools (installed where they are missing), 2 GB of disk for a
# while. Nothing to do if FOLDER is complete. tests/camera_vm/run.py calls this and keeps FOLDER between runs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
result=$(cd "$1" && pwd)
[ -e "$result/complete" ] && exit 0
work=$(mktemp -d "${TMPDIR:-/tmp}/standin-camera-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

tools=(flex bison bc make gcc xz-utils libc6-dev libelf-dev)

have_tools() {
  for program in flex bison bc make gcc xz; do command -v "$program" >/dev/null || return 1; done
  [ -e /usr/include/gelf.h ] && [ -e /usr/include/stdio.h ]
}

# The mirror that this computer already uses, so that a proxy or a snapshot of its own goes on working.
debian_mirror() {
  local found
  found=$(grep -hsoE '^[^#]*https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list || true)
  found=$(grep -oE 'https?://[^ ]*' <<< "$found" | head -n 1 || true)
  [ -n "$found" ] || { echo "apt has no mirror of Debian set up" >&2; exit 1; }
  echo "$found"
}

# apt for one suite of Debian, with lists of its own: what the computer has set up is neither used nor changed.
use_suite() {
  suite=$1
  mkdir -p "$suite/parts" "$suite/lists/partial" "$suite/packages"
  cat > "$suite/parts/suite.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: $keyring
SOURCES
  apt_suite "$suite" update -qq
}

apt_suite() {
  local suite=$1
  shift
  apt-get -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/$suite/parts" \
    -o "Dir::State::Lists=$work/$suite/lists" -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@"
}

unpack() {
  local suite=$1 package=$2
  (cd "$suite/packages" && apt_suite "$suite" download -qq "$package" && dpkg-deb -x "$package"_*.deb "../$package")
}

build_kernel() {
  mkdir kernel
  tar -xf bookworm/linux-source-6.1/usr/src/linux-source-6.1.tar.xz -C kernel --strip-components=1
  # The sound menu is hidden from User Mode Linux, which seldom has hardware; the loopback card needs none.
  sed -i 's/^if !UML$/if SOUND/' kernel/sound/Kconfig
  make -s -C kernel ARCH=um SUBARCH=x86_64 tinyconfig
  local options
  read -ra options <<< "$(grep -v '^#' "$here/kernel.config" | tr '\n' ' ')"
  (
    cd kernel
    for option in "${options[@]}"; do ./scripts/config --enable "$option"; done
    # A stack of 16 kB, and no device behind the virtual PCI bus. The timer stays at 100 Hz: 1000 stops this kernel.
    ./scripts/config --set-val KERNEL_STACK_ORDER 2 --set-val UML_PCI_OVER_VIRTIO_DEVICE_ID -1 \
      --set-val FRAME_WARN 2048 --disable WERROR --disable STATIC_LINK --disable SSL --disable SLOB --enable SLUB \
      --disable CC_OPTIMIZE_FOR_SIZE --enable CC_OPTIMIZE_FOR_PERFORMANCE
  )
  make -s -C kernel ARCH=um olddefconfig
  for option in VIDEO_DEV SND_ALOOP OVERLAY_FS HOSTFS; do
    grep -q "^CONFIG_$option=y" kernel/.config || { echo "the kernel cannot be set up with $option" >&2; exit 1; }
  done
  make -s -C kernel ARCH=um -j"$(nproc)" 2> kernel.log || { tail -n 30 kernel.log >&2; exit 1; }
  strip -o "$result/linux" kernel/linux
}

build_module() {
  local source version
  source=$(ls -d "$1"/v4l2loopback-dkms/usr/src/v4l2loopback-*)
  version=${source##*-}
  make -s -C kernel ARCH=um "M=$work/$source" modules 2> module.log || { tail -n 30 module.log >&2; exit 1; }
  strip -g -o "$result/v4l2loopback-$version.ko" "$source/v4l2loopback.ko"
}

mirror=$(debian_mirror)
keyring=$(ls /usr/share/keyrings/debian-archive-keyring.* 2>/dev/null | head -n 1 || true)
[ -n "$keyring" ] || { echo "the keys of Debian's archive are not installed" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
if ! have_tools; then
  apt-get -o DPkg::Lock::Timeout=300 update -qq
  apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${tools[@]}" > /dev/null
fi
use_suite bookworm
use_suite trixie
unpack bookworm linux-source-6.1
unpack bookworm v4l2loopback-dkms
unpack trixie v4l2loopback-dkms
build_kernel
build_module bookworm
build_module trixie
touch "$result/complete"
