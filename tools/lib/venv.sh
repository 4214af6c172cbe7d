# Make the checkout's virtual environment; sourced by the tools, from the top of the checkout.
#
# ensure_venv EXTRAS   (EXTRAS: "", "test", "test,clients")
#   .venv exists, has blobedge in editable form with these extras, and is rebuilt when pyproject.toml changed. Nothing is
#   downloaded when nothing changed. Downloads are tried several times, as a package index may fail for a moment.

tries_max=4

say() {
    printf '%s: %s\n' "${tool:-tools}" "$*" >&2
}

die() {
    say "$*"
    exit 1
}

# retry COMMAND...: run it until it succeeds, with growing pauses.
retry() {
    try=1
    until "$@"; do
        if [ "$try" -ge "$tries_max" ]; then
            return 1
        fi
        say "that failed; trying again in $((try * 5)) s ($try of $tries_max)"
        sleep $((try * 5))
        try=$((try + 1))
    done
}

# A Python of 3.11 or later: $PYTHON, python3, or a versioned name.
find_python() {
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "Python 3.11 or later is needed: apt-get install python3 python3-venv, or set PYTHON to its path"
}

make_venv() {
    python=$(find_python) || exit 1
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$(id -u)" = 0 ] || die "Python has no venv module: sudo apt-get install python3-venv"
        say "installing python3-venv"
        retry apt-get -qq update && retry env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install python3-venv >&2 \
            || die "cannot install python3-venv"
    fi
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || die "python -m venv failed"
}

ensure_venv() {
    extras=$1
    wanted="$(cksum <pyproject.toml) extras=$extras"
    marker=.venv/blobedge-installed
    .venv/bin/python -c '' 2>/dev/null || make_venv
    # What was installed for more extras serves for fewer.
    if [ -f "$marker" ] && grep -qxF "$wanted" "$marker"; then
        return
    fi
    say "installing blobedge${extras:+ with $extras} into .venv"
    retry .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 --timeout 60 \
        --editable ".${extras:+[$extras]}" >&2 || die "pip could not install what blobedge needs"
    if [ -z "$extras" ]; then
        echo "$wanted" >"$marker"
    else
        printf '%s\n%s\n' "$(cksum <pyproject.toml) extras=" "$wanted" >"$marker"
    fi
}
