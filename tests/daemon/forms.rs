//! The call forms without a subcommand, and where a mount may be.

scripts! {
    [root user userns] mount_program: r#"
        echo top >lower2/f
        # The first one is on top, as with the kernel; podman leaves empty items.
        "$OVLFUSE" -o "lowerdir=$here/lower2:$here/lower,upperdir=$here/upper,workdir=$here/work,,volatile" "$here/merged"
        is top cat merged/f
        echo changed >merged/f
        is fuse.ovlfuse findmnt -no FSTYPE --mountpoint "$here/merged"
        "$OVLFUSE" umount merged
        is changed cat upper/f"#;

    [root user userns] fuse_overlayfs_by_name: r#"
        ln -s "$OVLFUSE" fuse-overlayfs
        mkdir lower2/x && touch lower2/x/.wh.y lower/.wh.g
        ./fuse-overlayfs -o "lowerdir=$here/lower:$here/lower2,upperdir=$here/upper,workdir=$here/work" "$here/merged"
        [[ ! -e merged/g ]]
        is $'d\nf\nx' ls -A merged
        "$OVLFUSE" umount merged"#;

    // Owners that fuse-overlayfs's options show otherwise, and what is then on disk.
    [root] mapped_and_squashed_ids: r#"
        layers="lowerdir=$here/lower,upperdir=$here/upper,workdir=$here/work"
        chown 3:4 lower/f
        "$OVLFUSE" -o "$layers,uidmapping=0:100:50,gidmapping=0:100:50" "$here/merged"
        is 103:104 stat -c %u:%g merged/f
        chown 109:110 merged/f
        is 109:110 stat -c %u:%g merged/f
        is 9:10 stat -c %u:%g upper/f
        [[ $(chown 9 merged/f 2>&1) == *'Invalid argument'* ]]
        chmod 777 merged
        setpriv --reuid 105 --regid 106 --clear-groups mkdir merged/new
        is 105:106 stat -c %u:%g merged/new
        is 5:6 stat -c %u:%g upper/new
        "$OVLFUSE" umount merged
        "$OVLFUSE" -o "$layers,squash_to_root,squash_to_gid=7,static_nlink,timeout=0" "$here/merged"
        is 0:7 stat -c %u:%g merged/f
        is 1 stat -c %h merged/new
        chown 77:78 merged/f
        is 0:7 stat -c %u:%g merged/f
        is 77:78 stat -c %u:%g upper/f
        "$OVLFUSE" umount merged"#;

    // As containerd calls it: mount.fuse3 finds the program by its type, and both pipes end.
    [root] mount_fuse3: r#"
        mount -t tmpfs none /usr/local/bin && ln -s "$OVLFUSE" /usr/local/bin/fuse-overlayfs
        said=$(timeout 20 mount.fuse3 overlay "$here/merged" -o "lowerdir=$here/lower2:$here/lower,upperdir=$here/upper,workdir=$here/work" -t fuse-overlayfs 2>&1)
        is '' echo "$said"
        is overlay findmnt -no SOURCE --mountpoint "$here/merged"
        is lower2 cat merged/g
        "$OVLFUSE" umount merged"#;

    [root user userns] mount_helper: r#"
        "$OVLFUSE" the-source "$here/merged" -o "lowerdir=$here/lower,upperdir=$here/upper,workdir=$here/work,rw,_netdev,x-test"
        is the-source findmnt -no SOURCE --mountpoint "$here/merged"
        is fuse.ovlfuse findmnt -no FSTYPE --mountpoint "$here/merged"
        is lower cat merged/f
        "$OVLFUSE" umount merged"#;

    // mount(8) looks for the program in the standard places only.
    [root] mount_8: r#"
        mount -t tmpfs none /usr/local/bin && ln -s "$OVLFUSE" /usr/local/bin/
        mount -t fuse.ovlfuse the-source "$here/merged" -o "lowerdir=$here/lower,upperdir=$here/upper,workdir=$here/work,nosuid"
        is the-source findmnt -no SOURCE --mountpoint "$here/merged"
        [[ $(findmnt -no OPTIONS --mountpoint "$here/merged") == *nosuid* ]]
        is lower cat merged/f
        mount --internal-only -o remount,ro "$here/merged"
        [[ $( (echo x >merged/x) 2>&1) == *'Read-only file system'* ]]
        mount --internal-only -o remount,rw "$here/merged"
        echo x >merged/x
        umount merged"#;

    [root] fstab: r#"
        mount -t tmpfs none /usr/local/bin && ln -s "$OVLFUSE" /usr/local/bin/
        layers="lowerdir=$here/lower,upperdir=$here/upper,workdir=$here/work"
        echo "union $here/merged fuse.ovlfuse $layers,nofail,x-systemd.requires-mounts-for=$here 0 0" >fstab
        mount -T fstab "$here/merged"
        is union findmnt -no SOURCE --mountpoint "$here/merged"
        is lower cat merged/f
        umount merged"#;

    // The examples of the manual as they stand there, with the link that it wants.
    [root] fstab_and_unit_of_the_manual: concat!("manual=$(cat <<'END OF MANUAL'\n", include_str!("../../docs/ovlfuse.1.md"), "\nEND OF MANUAL\n)", r#"
        example() { awk -v "start=$1" '!on { on = $0 ~ start; next } /^    |^$/ { print substr($0, 5); next } { exit }' <<<"$manual"; }
        mkdir sbin sbin-work && mv lower base
        mount -t overlay none -o "lowerdir=$(readlink -f /sbin),upperdir=$here/sbin,workdir=$here/sbin-work" "$(readlink -f /sbin)"
        ln -s "$OVLFUSE" /sbin/mount.fuse.ovlfuse
        mount --bind "$here" /srv
        works() {
            is 'union fuse.ovlfuse' findmnt -rno SOURCE,FSTYPE --mountpoint /srv/merged
            is lower cat /srv/merged/f
            echo x >/srv/merged/x && rm /srv/upper/x
            umount /srv/merged
        }
        example '^A line of `/etc/fstab`' >fstab
        mount -T fstab /srv/merged
        works
        example '^A systemd unit' >srv-merged.mount
        is '' systemd-analyze verify ./srv-merged.mount
        cp srv-merged.mount other.mount
        ! systemd-analyze verify ./other.mount 2>/dev/null
        # What systemd does with it.
        setting() { sed -n "s/^$1=//p" srv-merged.mount; }
        mount "$(setting What)" "$(setting Where)" -t "$(setting Type)" -o "$(setting Options)"
        works"#);

    [root user userns] list: r#"
        mount_here
        "$OVLFUSE" list >said
        grep -q "^$here/merged"$'\t'"$(daemons)"$'\t'".*lower" said || complain "$(cat said)"
        "$OVLFUSE" umount merged
        "$OVLFUSE" list >said
        ! grep "$here/merged" said"#;

    [user] completions: r#"
        for shell in bash zsh fish; do
            "$OVLFUSE" completions $shell >$shell
            grep -q umount $shell
        done
        bash -n bash
        refused 2 perl "$OVLFUSE" completions perl"#;

    [root user userns] read_only: r#"
        "$OVLFUSE" mount --read-only "$here/lower:$here/lower2" "$here/merged"
        is lower2 cat merged/g
        [[ $( (echo x >merged/x) 2>&1) == *'Read-only file system'* ]]
        [[ $(findmnt -no OPTIONS --mountpoint "$here/merged") == ro,* ]]
        "$OVLFUSE" umount merged"#;

    [root user userns] work_is_made_when_not_given: r#"
        "$OVLFUSE" mount "$here/lower:$here/upper" "$here/merged"
        echo x >merged/f
        "$OVLFUSE" umount merged
        is f ls upper
        "$OVLFUSE" mount lower:upper merged
        is x cat merged/f
        "$OVLFUSE" umount merged"#;

    [root user userns] over_one_of_the_layers: r#"
        "$OVLFUSE" mount --work "$here/work" "$here/lower:$here/upper" "$here/upper" 2>said
        is lower cat upper/f
        echo x >upper/new
        is $'f\nnew' ls upper
        "$OVLFUSE" umount upper
        is new ls upper
        "$OVLFUSE" mount --work "$here/work" "$here/lower:$here/upper" "$here/lower" 2>said
        is $'f\nnew' ls lower
        rm lower/f
        is new ls lower
        "$OVLFUSE" umount lower
        is f ls lower"#;

    [root user userns] a_mount_point_with_files_in_it: r#"
        touch merged/hidden
        said=$(mount_here 2>&1)
        [[ $said == *warning*"not empty"* && $said != *$'\n'* ]] || complain "said: $said"
        [[ ! -e merged/hidden ]]
        "$OVLFUSE" umount merged
        is hidden ls merged"#;

    [root user userns] names_with_special_bytes: r#"
        odd=$'a:b,c\\d e\xff\n'
        mkdir "$odd" "$odd/m"
        mv lower upper work "$odd"
        escaped=$(printf '%s' "$here/$odd/" | sed 's/[:\\]/\\&/g'; echo .)
        escaped=${escaped%.}
        "$OVLFUSE" mount --work "$here/$odd/work" "${escaped}lower:${escaped}upper" "$here/$odd/m"
        is lower cat "$odd/m/f"
        echo x >"$odd/m/x"
        "$OVLFUSE" umount "$odd/m"
        is x cat "$odd/upper/x""#;
}
