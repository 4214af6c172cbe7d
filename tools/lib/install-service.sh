# The service around a release: user, units, configuration, start, removal. Sourced by tools/install.

ACTIVE_SECONDS_MAX=90 # TimeoutStartSec= of the unit
TUNE_STATE=/var/lib/blobedge-tune # agent/tuning/knobs.py

# put SOURCE TARGET: a file of ours, root's, for all to read.
put() {
    install -D -m 644 "$1" "$2"
}

install_units() {
    from=$opt/versions/$release/systemd
    put "$from/blobedge.sysusers" "$root/usr/lib/sysusers.d/blobedge.conf"
    put "$from/blobedge.tmpfiles" "$root/usr/lib/tmpfiles.d/blobedge.conf"
    put "$from/blobedge.service" "$units/blobedge.service"
    put "$from/blobedge-tune.service" "$units/blobedge-tune.service"
    install -d -m 755 "$root/usr/local/bin"
    link /opt/blobedge/current/bin/blobedge "$root/usr/local/bin/blobedge"
    if [ -z "$root" ]; then
        systemd-sysusers blobedge.conf || die "systemd-sysusers could not make the user blobedge"
        systemd-tmpfiles --create blobedge.conf || die "systemd-tmpfiles could not make $etc"
    else
        install -d -m 755 "$etc"
        install -d -m 700 "$etc/secrets"
    fi
}

# make_config: the sample with a key of its own, on the first installation only.
make_config() {
    if [ -e "$etc/blobedge.toml" ]; then
        return
    fi
    if [ ! -e "$etc/secrets/plant7.key1" ]; then
        (umask 077 && head -c 64 /dev/urandom | base64 -w 0 >"$etc/secrets/.plant7.key1") || die "cannot write a key"
        mv "$etc/secrets/.plant7.key1" "$etc/secrets/plant7.key1"
    fi
    "$opt/versions/$release/bin/blobedge" config example >"$work/example" || die "blobedge $release does not run"
    sed 's#^key1_file = .*#key1_file = "/run/credentials/blobedge.service/secrets_plant7.key1"#' "$work/example" \
        >"$etc/blobedge.toml.new" || die "cannot write $etc/blobedge.toml"
    chmod 644 "$etc/blobedge.toml.new"
    mv "$etc/blobedge.toml.new" "$etc/blobedge.toml"
    data=$root/srv/blobedge/plant7
    mkdir -p "$data"
    if [ -z "$root" ]; then
        chown blobedge:blobedge "$data"
    fi
    say "wrote $etc/blobedge.toml: account plant7 on http://127.0.0.1:10000, its data in /srv/blobedge/plant7"
}

# accept_config RELEASE-DIRECTORY: does this version understand the configuration? And the drop-in that follows from it.
accept_config() {
    "$1/bin/python" -I "$1/tools/lib/install_dropin.py" "$etc/blobedge.toml" >"$work/dropin" \
        || refuse "nothing was switched: mend $etc/blobedge.toml first"
    put "$work/dropin" "$units/blobedge.service.d/10-configuration.conf"
}

start_service() {
    if [ -n "$root" ]; then
        return
    fi
    put "$opt/current/systemd/blobedge.service" "$units/blobedge.service"
    put "$opt/current/systemd/blobedge-tune.service" "$units/blobedge-tune.service"
    systemctl daemon-reload
    systemctl --quiet enable blobedge.service
    timeout "$ACTIVE_SECONDS_MAX" systemctl restart blobedge.service \
        || die "blobedge did not start: journalctl -u blobedge -n 20 says why; $0 --rollback goes back"
}

stop_units() {
    for unit in blobedge.service blobedge-tune.service; do
        if [ -e "$units/$unit" ]; then
            systemctl --quiet disable --now "$unit" || die "cannot stop $unit: systemctl status $unit says why"
        fi
    done
}

# data_of: the directories that the configuration names, as the release that goes understands it.
data_of() {
    "$opt/current/bin/python" -I "$opt/current/tools/lib/install_dropin.py" --data "$etc/blobedge.toml" 2>/dev/null || true
}

# undo_tuning: give the kernel its old values back, while the program that recorded them is still here.
undo_tuning() {
    if [ -e "$TUNE_STATE/state.json" ]; then
        "$opt/current/bin/blobedge" tune rollback >&2 \
            || die "the kernel's old settings cannot be restored; nothing was removed: mend what is said above, then again"
    fi
    if [ -d "$TUNE_STATE" ]; then
        rmdir "$TUNE_STATE" || say "kept $TUNE_STATE: it has files that are none of ours"
    fi
}

remove_all() {
    data=$(data_of)
    if [ -z "$root" ]; then
        undo_tuning
        stop_units
    fi
    rm -rf "$opt" "$units/blobedge.service.d"
    rm -f "$units/blobedge.service" "$units/blobedge-tune.service" "$root/usr/local/bin/blobedge" \
        "$root/usr/lib/sysusers.d/blobedge.conf" "$root/usr/lib/tmpfiles.d/blobedge.conf"
    if [ -z "$root" ]; then
        systemctl daemon-reload
        systemctl reset-failed blobedge.service blobedge-tune.service 2>/dev/null || true
    fi
    say "blobedge is removed; kept: $etc (configuration and keys)${data:+, $(echo $data | sed 's/ /, /g') (data)}, /var/lib/blobedge (state)," \
        "and the user blobedge, who owns the data"
}
