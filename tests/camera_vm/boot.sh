#!/usr/bin/env bash
# boot.sh MACHINE_FOLDER MODULE.ko JOB.sh OUT_FOLDER [MODULE_OPTION=VALUE...]
# Boots the small machine, runs JOB.sh in it and ends with its exit status (99: the machine did not get that far).
# It sees this computer's files read-only and changes nothing of them; OUT_FOLDER is /out there, and is written to.
# CAMERA_VM_MEMORY_MB (2048) and CAMERA_VM_TIMEOUT_S (300) bound it.
set -u

# A function, so that the script has been read as a whole before anything runs.
main() {
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  machine=$(realpath "$1") module=$(realpath "$2") job=$(realpath "$3") out=$(realpath "$4")
  shift 4
  memory_mb=${CAMERA_VM_MEMORY_MB:-2048}
  # Its memory is a file in /dev/shm, which in containers is often small; a disk is slower but has room.
  free_mb=$(df --output=avail -BM /dev/shm 2> /dev/null | tail -n 1 | tr -dc 0-9)
  [ "${free_mb:-0}" -ge "$memory_mb" ] || export TMPDIR=/var/tmp
  printf '%s\n' "$@" > "$out/module_options"
  rm -f "$out/status"
  timeout -k 5 "${CAMERA_VM_TIMEOUT_S:-300}" "$machine/linux" "mem=${memory_mb}M" \
    rootfstype=hostfs ro "init=$here/init.sh" con=null con0=null,fd:1 quiet \
    "job=$job" "out=$out" "ko=$module" < /dev/null 2>&1 \
    | grep --line-buffered -av -e 'ubd device' -e 'sysrq: Power Off' -e 'reboot: Power down'
  exit "$(cat "$out/status" 2> /dev/null || echo 99)"
}

main "$@"
