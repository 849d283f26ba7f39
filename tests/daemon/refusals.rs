//! Bad input: one sentence, a distinct exit code, and nothing changed.

/// Runs its checks between two listings of the folder.
macro_rules! unchanged {
    ($checks:literal) => {
        concat!(
            "listing() { find . -path ./tmp -prune -o -printf '%p %y %m %i %Ts\\n' | sort; }\n",
            "before=$(listing)\n",
            $checks,
            "\n[[ $(listing) == \"$before\" ]] || complain \"changed: $(diff <(echo \"$before\") <(listing))\"\n",
            "if mounted merged; then complain mounted; fi\n",
        )
    };
}

scripts! {
    [root user userns] layers: unchanged!(r#"
        refused 3 missing "$OVLFUSE" mount missing:upper merged
        refused 3 missing "$OVLFUSE" mount lower:missing merged
        refused 3 lower/f "$OVLFUSE" mount lower/f:upper merged
        refused 3 lower/f "$OVLFUSE" mount lower:lower/f merged
        refused 3 lower2/d "$OVLFUSE" mount lower2:lower2/d merged
        refused 3 lower2/d "$OVLFUSE" mount lower2/d:lower2 merged
        refused 3 upper "$OVLFUSE" mount upper:upper merged"#);

    // The way up from what is mounted elsewhere ends there, others go on.
    [root userns] layers_below_a_bind_mount: r#"
        mkdir -p a/b/c a/b/x a/b/w bind
        mount --bind a/b bind
        refused 4 a/b/w "$OVLFUSE" mount --work a/b/w a:bind/c:upper merged
        refused 3 a/b/x "$OVLFUSE" mount a:a/b/x:bind/c:upper merged
        umount bind"#;

    [root user userns] mount_points: unchanged!(r#"
        refused 5 missing "$OVLFUSE" mount --work work lower:upper missing
        refused 5 lower/f "$OVLFUSE" mount --work work lower:upper lower/f
        refused 5 missing "$OVLFUSE" mount --read-only lower:lower2 missing"#);

    [root user userns] work_directories: unchanged!(r#"
        refused 4 lower/f "$OVLFUSE" mount --work lower/f lower:upper merged
        refused 4 upper "$OVLFUSE" mount --work upper/w lower:upper merged
        refused 4 /dev/shm "$OVLFUSE" mount --work /dev/shm lower:upper merged"#);

    [user] closed_layers: r#"
        chmod 000 lower2
        refused 3 lower2 "$OVLFUSE" mount --work work lower2:upper merged"#;

    [root user userns] work_in_use: r#"
        mount_here
        mkdir merged2 upper2 work2
        refused 4 work "$OVLFUSE" mount --work work lower:upper2 merged2
        refused 3 upper "$OVLFUSE" mount --work work2 lower:upper merged2
        is lower cat merged/f
        echo x >merged/f
        "$OVLFUSE" umount merged
        is '' ls upper2
        mount_here
        is x cat merged/f
        "$OVLFUSE" umount merged"#;

    [root user userns] left_by_a_volatile_mount: r#"
        mount_here -o volatile
        echo x >merged/f
        kill -KILL "$(daemons)"
        until ! ls merged >/dev/null 2>&1; do :; done
        "$OVLFUSE" umount merged 2>/dev/null || fusermount3 -u merged
        refused 4 volatile mount_here
        chmod 700 work/work
        (cd work/work && rm -r incompat)
        mount_here
        is x cat merged/f
        "$OVLFUSE" umount merged"#;

    [root user userns] passthrough: unchanged!(r#"
        if ((UID != 0)) || [[ $(readlink /proc/self/ns/user) != 'user:[4026531837]' ]]; then
            refused 2 passthrough "$OVLFUSE" mount --work work -o passthrough lower:upper merged
            refused 2 passthrough "$OVLFUSE" mount --read-only -o passthrough lower:lower2 merged
        else
            refused 2 passthrough "$OVLFUSE" mount --work work -o passthrough,no_open lower:upper merged
        fi"#);

    [user] no_open: unchanged!(r#"
        refused 2 no_open "$OVLFUSE" mount --work work -o no_open lower:upper merged"#);

    [user] no_fusermount3: unchanged!(r#"
        mkdir tmp/empty
        refused 7 fusermount3 env PATH="$here/tmp/empty" "$OVLFUSE" mount --read-only lower:lower2 merged"#);

    [root userns] no_dev_fuse: unchanged!(r#"
        refused 6 /dev/fuse unshare --mount --propagation private sh -c '
            mkdir tmp/dev && touch tmp/dev/null && mount --bind /dev/null tmp/dev/null
            mount --rbind tmp/dev /dev && exec "$OVLFUSE" mount --read-only lower:lower2 merged'"#);

    [root user userns] as_the_other_forms: unchanged!(r#"
        refused 3 missing "$OVLFUSE" -o lowerdir=missing,upperdir=upper,workdir=work merged
        refused 3 missing "$OVLFUSE" source merged -o lowerdir=missing
        refused 2 wibble "$OVLFUSE" source merged -o lowerdir=lower,wibble
        refused 2 nfs_export "$OVLFUSE" -o lowerdir=lower,nfs_export=on merged"#);
}
