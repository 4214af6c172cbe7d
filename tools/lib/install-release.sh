# Releases: unpack a bundle, make a virtual environment of it, switch to it. Sourced by tools/install.

# unpack: set `source` to an unpacked bundle, `release` to its name, `python` to an interpreter that its wheels are for.
unpack() {
    if [ -z "$bundle" ] && [ -f "$home/MANIFEST" ]; then
        source=$home
    else
        if [ -z "$bundle" ]; then
            bundle=$work/bundle.tar.gz
            "$home/tools/bundle" --output "$bundle" >/dev/null || die "cannot make a bundle of this checkout"
        fi
        [ -r "$bundle" ] || refuse "cannot read the bundle $bundle"
        mkdir "$work/unpacked"
        tar -C "$work/unpacked" --strip-components=1 --no-same-owner -xzf "$bundle" 2>/dev/null \
            || refuse "$bundle is not a whole tar.gz: copy it again"
        source=$work/unpacked
    fi
    [ -f "$source/MANIFEST" ] || refuse "$bundle is not a bundle of tools/bundle: it has no MANIFEST"
    release=$(manifest_value release)
    case $release in
        "" | *[!A-Za-z0-9._+-]* | .*) refuse "the bundle's MANIFEST names no release" ;;
    esac
    machine=$(manifest_value machine)
    [ "$machine" = "$(uname -m)" ] || refuse "the bundle is for $machine, this machine is $(uname -m)"
    python=$(find_python "$(manifest_value python)") || exit "$EXIT_CONFIG"
}

manifest_value() {
    sed -n "s/^$1=//p" "$source/MANIFEST"
}

# find_python VERSION: wheels with C code fit one version only. It must be a Python that the service's user can reach,
# so none of a home directory.
find_python() {
    for candidate in ${PYTHON:-} "/usr/bin/python$1" "/usr/local/bin/python$1" /usr/bin/python3 /usr/local/bin/python3; do
        found=$("$candidate" -c 'import os, sys; print("%d.%d" % sys.version_info[:2], os.path.realpath(sys.executable))' \
            2>/dev/null) || continue
        case $found in
            "$1 /home/"* | "$1 /root"*) ;;
            "$1 "*) echo "${found#* }"; return ;;
        esac
    done
    refuse "the bundle needs Python $1 outside /home and /root: apt-get install python3, or set PYTHON to its path"
}

# make_release: $opt/versions/$release, complete or not there; its last file is the mark that it is complete.
make_release() {
    target=$opt/versions/$release
    if [ -f "$target/blobedge-release" ]; then
        return
    fi
    rm -rf "$target"
    mkdir -p "$opt/versions"
    "$python" -m venv --without-pip "$target" || die "$python cannot make a virtual environment in $target"
    # pip runs from its wheel, so the machine needs none; -I keeps the caller's configuration and PYTHONPATH out.
    pip_wheel=$(echo "$source"/wheels/pip-*.whl)
    PIP_CONFIG_FILE=/dev/null "$target/bin/python" -I -c \
        'import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module("pip", run_name="__main__", alter_sys=True)' \
        "$pip_wheel" --isolated --disable-pip-version-check install --quiet --no-index --no-cache-dir --no-warn-script-location \
        --root-user-action=ignore --find-links "$source/wheels" blobedge || {
        rm -rf "$target"
        die "pip could not install the bundle's wheels into $target: is the disk full?"
    }
    cp -r "$source/systemd" "$source/tools" "$source/MANIFEST" "$target/"
    chmod -R go+rX "$target"
    echo "$release" >"$target/blobedge-release"
    sync -f "$target"
}

# current_release: the name that the symlink has now, nothing if there is none.
current_release() {
    target=$(readlink "$opt/current" 2>/dev/null) || return 0
    echo "${target##*/}"
}

# former_release: the version before the current one, if it is still complete.
former_release() {
    target=$(readlink "$opt/previous" 2>/dev/null) || return 0
    if [ -f "$opt/$target/blobedge-release" ]; then
        echo "${target##*/}"
    fi
}

# switch_to RELEASE: the one moment of an upgrade. rename(2) replaces the link whole, so there is always a version.
switch_to() {
    now=$(current_release)
    if [ "$now" = "$1" ]; then
        return
    fi
    if [ -n "$now" ]; then
        link "versions/$now" "$opt/previous"
    fi
    link "versions/$1" "$opt/current"
    for old in "$opt/versions"/*; do
        case ${old##*/} in
            "$1" | "$now") ;;
            *) rm -rf "$old" ;;
        esac
    done
}

# link TARGET PATH: make or replace a symlink in one step.
link() {
    ln -sfn "$1" "$2.new"
    mv -T "$2.new" "$2"
}
