#!/bin/sh
# Prepares a checkout, called by the Makefile: what is there is left alone, so that a second run takes a blink.
#
#   sh runner/host/install.sh python     .venv with vmlab
#   sh runner/host/install.sh lint       .venv with vmlab and the test tools
#   sh runner/host/install.sh run        .venv with vmlab,              and the system packages of packages.txt
#   sh runner/host/install.sh test       .venv with vmlab and the test tools, and those of packages-test.txt too
#
# Whatever cannot be done ends in two lines, what is wrong and what to do, and exit status 2, with nothing half-made: system packages
# are looked for before .venv is begun, and a .venv that could not be finished is removed.
set -eu
unset CDPATH
cd -P "$(dirname "$0")/../.."
here=$(pwd -P)
want=${1:-run}
log=
begun=

say() { printf 'vmlab: %s\n' "$*" >&2; }

stop() {
    say "$1"
    say "$2"
    exit 2
}

clean_up() {
    status=$?
    trap - EXIT
    if [ -n "$log" ]; then rm -f "$log"; fi
    if [ -n "$begun" ]; then rm -rf .venv; fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Sets $python. Where python3 is old, a newer one may stand beside it under its full name.
find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_new_enough "$python"; then return; fi
    done
    found=$(python3 -c 'import platform; print("is", platform.python_version())' 2>/dev/null || echo 'is missing')
    stop "Python 3.11 or newer is needed; python3 here $found" \
        "Debian 12 and Ubuntu 24.04 have it; or name one: make PYTHON=/path/to/python3.12"
}

is_met() {
    case $1 in
    /*) [ -e "$1" ] ;;
    # Debian keeps mke2fs and sfdisk in sbin, which an ordinary user's PATH lacks.
    *) (PATH=$PATH:/usr/sbin:/sbin && command -v "$1" >/dev/null 2>&1) ;;
    esac
}

unmet_rows() {
    while read -r probe package _purpose; do
        case $probe in '' | '#'*) continue ;; esac
        is_met "$probe" || printf '%s\n' "$package"
    done <"$1"
}

# The Debian packages that are missing for "$want", on one line.
missing_packages() {
    {
        case $want in run | test) unmet_rows runner/packages.txt ;; esac
        case $want in test) unmet_rows runner/packages-test.txt ;; esac
        # Debian's python3 comes without what makes a virtual environment.
        "$python" -c 'import ensurepip, venv' 2>/dev/null || printf '%s-venv\n' "$(basename "$python")"
    } | sort -u | tr '\n' ' ' | sed 's/ $//'
}

install_packages() {
    packages=$1
    sudo="sudo "
    as_root="sudo -n"
    if [ "$(id -u)" -eq 0 ]; then
        sudo=
        as_root=
    fi
    by_hand="install by hand: ${sudo}apt-get install $packages"
    if ! command -v apt-get >/dev/null 2>&1; then
        stop "missing system packages: $packages (and this machine has no apt-get)" "$by_hand (Debian's names; yours may differ)"
    fi
    if [ -n "$sudo" ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            stop "missing system packages: $packages (you are not root, and there is no sudo)" \
                "ask an administrator to run: apt-get install $packages"
        fi
        if ! sudo -n true 2>/dev/null; then
            if ! [ -t 0 ]; then stop "missing system packages: $packages (sudo wants a password)" "$by_hand"; fi
            say "sudo asks for your password, to install: $packages"
            as_root=sudo
            $as_root true || stop "missing system packages: $packages (sudo refused)" "$by_hand"
        fi
    fi
    say "installing system packages: $packages"
    log=$(mktemp)
    # A fresh cloud machine may be busy upgrading itself: wait for its lock. A failing update is not the end, since one broken source of
    # many fails it; the installation decides.
    apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
    # Services that a package may start must not inherit our lock (descriptor 9).
    $apt update >>"$log" 2>&1 </dev/null 9<&- || :
    # shellcheck disable=SC2086  # a list of words
    $apt install -y --no-install-recommends $packages >>"$log" 2>&1 </dev/null 9<&- || :
    still=$(missing_packages)
    if [ -n "$still" ]; then
        cause=$(grep -E -m 1 'Temporary failure|Could not|cannot|Unable|^E:' "$log" | sed 's/^ *\(E: \)*//' | cut -c 1-160)
        stop "could not install system packages: $still (${cause:-apt-get said nothing})" "when that is mended, try again, or $by_hand"
    fi
    rm -f "$log"
    log=
}

# What .venv was made from. A line more (the test tools) counts as having the line less (vmlab alone).
stamp() { printf '%s\n' "$here" && cat pyproject.toml; }

is_stamped() { [ "$(stamp | cksum)" = "$(cat ".venv/$1.stamp" 2>/dev/null)" ]; }

# Whether the .venv is whole, was made here, and finds this checkout. It may have been moved with the checkout, or belong to a Python
# that a system upgrade took away.
is_ours() {
    [ -x .venv/bin/python ] && grep -qsF "$here/.venv/bin/python" .venv/bin/pip && .venv/bin/python -I -c 'import pip' 2>/dev/null
}

is_ready() {
    is_stamped "$1" && [ -x .venv/bin/vmlab ] && grep -qsF "$here/.venv/bin/python" .venv/bin/vmlab &&
        .venv/bin/python -I -c 'import vmlab; vmlab.__version__' 2>/dev/null
}

make_venv() {
    level=$1
    extra=$2
    say "installing Python packages into .venv${extra:+ with $extra}"
    log=$(mktemp)
    if ! is_ours; then
        begun=yes
        if ! "$python" -m venv --clear .venv >"$log" 2>&1; then
            stop "$python cannot make a virtual environment: $(tail -n 1 "$log")" "is the disk full, or this folder read-only? $here"
        fi
    fi
    if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extra" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        stop "pip could not install the Python packages: $(grep -m 1 '^ERROR' "$log" | cut -c 1-160)" \
            "is the network there? then try again"
    fi
    stamp | cksum >.venv/run.stamp
    if [ "$level" = test ]; then cp .venv/run.stamp .venv/test.stamp; fi
    begun=
    rm -f "$log"
    log=
}

find_python
case $want in
python | run) level=run extra= ;;
lint | test) level=test extra='[test]' ;;
*) stop "install.sh does not know '$want'" "it knows: python, lint, run, test" ;;
esac
packages=$(missing_packages)
if [ -n "$packages" ] || ! is_ready "$level"; then
    # Two terminals may begin at once: the second waits here and then finds everything done.
    exec 9<.
    flock 9 2>/dev/null || :
    packages=$(missing_packages)
    if [ -n "$packages" ]; then install_packages "$packages"; fi
    if ! is_ready "$level"; then make_venv "$level" "$extra"; fi
fi
