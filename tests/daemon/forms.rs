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
