//! `ovlfuse refresh`: what a mount shows of layers that were changed without it.

scripts! {
    [root user userns] names: r#"
        echo one >lower/old; echo one >lower/swapped; mkdir lower/dir lower/dir/in lower/emptied
        touch lower/dir/in/x lower/emptied/y; ln -s one lower/link
        mount_here
        [[ ! -e merged/new && ! -e merged/dir/in/new && ! -e merged/both ]]
        is $'d\ndir\nemptied\nf\ng\nlink\nold\nswapped' ls merged
        is x ls merged/dir/in
        is y ls merged/emptied
        is one readlink merged/link
        rm -r lower/old lower/swapped lower/dir lower/emptied lower/link
        mkdir lower/swapped lower/both lower2/both lower2/d/in; touch lower/swapped/z lower/both/1 lower2/both/2
        echo two >lower/new; echo file >lower/dir; ln -s two lower/link; mkdir lower/emptied
        is '' "$OVLFUSE" refresh merged
        is $'both\nd\ndir\nemptied\nf\ng\nlink\nnew\nswapped' ls merged
        is two cat merged/new
        is file cat merged/dir
        is z ls merged/swapped
        is $'1\n2' ls merged/both
        is $'h\nin' ls merged/d
        is '' ls merged/emptied
        is two readlink merged/link
        [[ ! -e merged/old ]]
        # It goes on as ever.
        echo x >merged/swapped/z; rm merged/new; mv merged/link merged/moved
        is x cat upper/swapped/z
        "$OVLFUSE" umount merged"#;

    [root user userns] content_and_attributes: r#"
        mount_here
        is 644 stat -c %a merged/f
        is h cat merged/d/h
        is lower2 cat merged/g
        chmod 600 lower/f; touch -d @1000 lower2/g; echo a longer line >lower/f; printf xx >lower2/d/h
        "$OVLFUSE" refresh merged
        is 600 stat -c %a merged/f
        is 'a longer line' cat merged/f
        is xx cat merged/d/h
        is 2 stat -c %s merged/d/h
        is 1000 stat -c %Y merged/g
        "$OVLFUSE" umount merged"#;

    [root user userns] a_layer_above_or_below: r#"
        mount_here
        is h ls merged/d
        is lower2 cat merged/g
        mkdir lower/d upper/d; touch lower/d/below upper/d/above; echo upper >upper/g
        "$OVLFUSE" refresh merged
        is $'above\nbelow\nh' ls merged/d
        is upper cat merged/g
        rm upper/g lower2/g
        "$OVLFUSE" refresh merged
        is $'d\nf' ls merged
        "$OVLFUSE" umount merged"#;

    [root user userns] open_files: r#"
        echo kept >lower/kept; mkdir lower/stays lower/goes; echo 1 >upper/written
        mount_here
        exec 5<merged/f 6<merged/kept 7>>merged/written 8<merged/g
        cat <&8 >/dev/null
        before=$(stat -c %i merged/kept merged/stays merged/written)
        cd merged/stays
        # Another file by the same name, and one that is gone.
        echo other >"$here/lower2/other"; mv "$here/lower2/other" "$here/lower/f"; rm "$here/lower2/g"
        (cd "$here/merged/goes" && mv "$here/lower/goes" "$here/lower/went" && mkdir "$here/lower/goes"
         "$OVLFUSE" refresh "$here/merged"
         { ! said=$(ls 2>&1) && [[ $said == *[Ss]tale* ]]; } || complain "a lost directory: $said")
        "$OVLFUSE" refresh "$here/merged"
        is "$before" stat -c %i "$here/merged/kept" "$here/merged/stays" "$here/merged/written"
        touch here
        cd "$here"
        is here ls upper/stays
        is lower cat <&5
        is other cat merged/f
        is kept cat <&6
        echo 2 >&7
        is $'1\n2' cat merged/written
        is $'1\n2' cat upper/written
        [[ ! -e merged/g ]]
        is 0 stat -Lc %h /dev/fd/8
        exec 5<&- 6<&- 7>&- 8<&-
        "$OVLFUSE" umount merged"#;

    [root user userns] nothing_changed: r#"
        mkdir -p lower/a/b lower2/a/c; touch lower/a/b/1; ln lower/a/b/1 lower/a/b/2; echo 1 >lower/a/c1
        # Without privileges there is none.
        [[ $CONTEXT == user ]] && index=off || index=on
        mount_here -o index=$index
        echo x >>merged/a/b/1; mkdir merged/a/b/new; touch merged/a/b/new/n; ln merged/a/b/new/n merged/a/m; rm merged/f
        exec 5<merged/a/c1
        cd merged/a/b
        before=$(find "$here/merged" -printf '%P %i %n %s %T@\n')
        "$OVLFUSE" refresh "$here/merged"
        is "$before" find "$here/merged" -printf '%P %i %n %s %T@\n'
        is "$([[ $CONTEXT == user ]] || echo x)" cat 2
        cd "$here"
        "$OVLFUSE" umount merged 2>/dev/null && complain 'the open file is lost'
        exec 5<&-
        "$OVLFUSE" umount merged"#;

    // A directory that was copied up whole goes on showing its number, which nothing on disk tells.
    [root user userns] copied_up_whole: r#"
        mkdir lower/a; echo 1 >lower/a/1
        mount_here -o redirect_dir=copy
        mv merged/a merged/b
        cd merged/b
        before=$(stat -c %i . 1)
        "$OVLFUSE" refresh "$here/merged"
        is "$before" stat -c %i . 1
        is 1 ls
        cd "$here"
        "$OVLFUSE" umount merged"#;

    [root user userns] read_only: r#"
        "$OVLFUSE" mount --read-only lower:lower2 merged
        is lower cat merged/f
        [[ ! -e merged/new ]]
        exec 5<merged/f
        echo new >lower/new; mv lower/new lower/f; echo new >lower2/new
        "$OVLFUSE" refresh merged
        is new cat merged/f
        is new cat merged/new
        is lower cat <&5
        exec 5<&-
        "$OVLFUSE" umount merged"#;

    // A mount below, where nothing changed, stays.
    [root userns] mounts_below: r#"
        mount_here
        mount -t tmpfs none merged/d
        touch merged/d/tmp lower/new
        "$OVLFUSE" refresh merged
        is tmp ls merged/d
        [[ -e merged/new ]]
        umount merged/d
        "$OVLFUSE" umount merged"#;

    [root user userns] while_it_is_used: r#"
        mkdir lower/t; for i in {1..40}; do mkdir lower/t/$i; echo $i >lower/t/$i/f; done
        mount_here -o redirect_dir=copy
        (for i in {1..200}; do mkdir merged/w; echo $i >merged/w/f; cat merged/t/$((i % 20 + 1))/f >/dev/null; mv merged/w merged/t/$((i % 20 + 1))/w; is $i cat merged/t/$((i % 20 + 1))/w/f; rm -r merged/t/$((i % 20 + 1))/w; done) &
        one=$!
        (for i in {21..40}; do echo more >>merged/t/$i/f; mv merged/t/$i merged/t/m$i; is $i$'\n'more cat merged/t/m$i/f; done) &
        two=$!
        while kill -0 $one 2>/dev/null; do "$OVLFUSE" refresh merged; done
        wait $one; wait $two
        for i in {21..40}; do is $i$'\n'more cat merged/t/m$i/f; done
        is 40 bash -c 'ls merged/t | wc -l'
        "$OVLFUSE" umount merged"#;

    [root] who_may: r#"
        chmod 755 .; mount_here -o allow_other
        refused 5 'who mounted it' setpriv --reuid 12345 --clear-groups "$OVLFUSE" refresh merged
        refused 5 'mount point itself' "$OVLFUSE" refresh merged/d
        refused 5 'mount point itself' "$OVLFUSE" refresh lower
        refused 5 missing "$OVLFUSE" refresh missing
        "$OVLFUSE" umount merged"#;
}
