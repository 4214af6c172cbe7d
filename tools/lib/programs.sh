# Install the programs that the suite drives; sourced by tools/test, from the top of the checkout, after venv.sh.
#
# Debian's packages need root: without it, what is missing is named, and the tests that need it skip with that reason.
# npm's packages go to .cache/npm, at fixed versions, so that a client's release cannot turn the suite red.

npm_prefix=.cache/npm
npm_packages="@azure-tools/azcopy-linux@10.32.2 @azure/storage-blob@12.32.0 azurite@3.35.0"

# have_library NAME: the dynamic linker knows it.
have_library() {
    /sbin/ldconfig -p 2>/dev/null | grep -qF "$1"
}

# missing_debian: the names of the Debian packages that are not here yet.
missing_debian() {
    for pair in rclone:rclone mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs nginx:nginx-light wrk:wrk ip:iproute2 nft:nftables \
        node:nodejs npm:npm git:git openssl:openssl promtool:prometheus mmdebstrap:mmdebstrap \
        systemd-analyze:systemd; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done
    have_library libsecret-1.so.0 || echo libsecret-1-0
    have_library libfuse.so.2 || echo libfuse2
}

# Debian starts a service that it installs; the suite wants nginx's program, not a server on port 80.
install_debian() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    retry apt-get -qq -o Acquire::Retries=3 update || return 1
    # Word splitting is meant: one package per word.
    # shellcheck disable=SC2086
    retry env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=3 \
        --no-install-recommends install $1 >/dev/null
    result=$?
    if [ -x "$policy" ] && grep -qx 'exit 101' "$policy"; then
        rm -f "$policy"
        trap - EXIT
    fi
    return $result
}

ensure_debian() {
    missing=$(missing_debian | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "not installed: $missing(tests that need them skip; sudo apt-get install $missing)"
        return 0
    fi
    say "installing $missing"
    install_debian "$missing" || die "cannot install $missing"
}

ensure_npm() {
    marker=$npm_prefix/blobedge-installed
    if [ -f "$marker" ] && [ "$(cat "$marker")" = "$npm_packages" ]; then
        return
    fi
    if ! command -v npm >/dev/null; then
        say "npm is not installed: tests of AzCopy, the Node SDK and Azurite skip"
        return 0
    fi
    say "installing AzCopy, the Node SDK and Azurite into $npm_prefix"
    mkdir -p "$npm_prefix"
    # shellcheck disable=SC2086
    retry npm install --prefix "$npm_prefix" --no-audit --no-fund --no-progress --loglevel=error \
        --fetch-retries=5 --fetch-timeout=60000 $npm_packages >&2 || die "npm could not install $npm_packages"
    # The package unpacks its binary without the execute bit.
    chmod +x "$npm_prefix/node_modules/@azure-tools/azcopy-linux/dist/bin/"azcopy_linux_*
    echo "$npm_packages" >"$marker"
}
