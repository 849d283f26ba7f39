//! From the mount to the end of the daemon.

scripts! {
    [root user userns] detaches_when_the_mount_answers: r#"
        # The substitution ends when nobody has the pipe open any more.
        printed=$(mount_here 2>&1)
        [[ -z $printed ]] || complain "printed: $printed"
        is lower cat merged/f
        is lower2 cat merged/g
        pid=$(daemons)
        for fd in 0 1 2; do is /dev/null readlink "/proc/$pid/fd/$fd"; done
        is / readlink "/proc/$pid/cwd"
        echo new >merged/new
        is '' "$OVLFUSE" umount merged
        ended "$pid" || complain "the daemon is still there after ovlfuse umount"
        is new cat upper/new
        is '' ls merged"#;

    [root user userns] is_in_the_mount_table: r#"
        mount_here
        is fuse.ovlfuse findmnt -no FSTYPE --mountpoint "$here/merged"
        source=$(findmnt -no SOURCE --mountpoint "$here/merged")
        [[ $source == *lower* ]] || complain "source: $source"
        [[ $(df --output=source,fstype merged | tail -n 1) == *lower*fuse.ovlfuse* ]]
        mount | grep -q "lower.* on $here/merged type fuse.ovlfuse (rw,"
        is "$(df --output=size upper | tail -n 1)" bash -c 'df --output=size merged | tail -n 1'
        "$OVLFUSE" umount merged"#;

    [root user userns] a_signal_unmounts: r#"
        for signal in TERM INT; do
            exec_mount -f 2>log &
            pid=$!
            until mounted merged; do ended $pid && complain "$(cat log)"; done
            is lower cat merged/f
            kill -HUP $pid
            is lower cat merged/f
            kill -$signal $pid
            wait $pid || complain "SIG$signal: exit status $?: $(cat log)"
            mounted merged && complain "SIG$signal: still mounted"
            mount_here
            pid=$(daemons)
            kill -$signal "$pid"
            wait_for "$pid"
            mounted merged && complain "SIG$signal: the detached daemon left the mount"
        done; true"#;

    // The first opening brings the content of a small file of a lower layer along.
    [root user userns] small_files_need_no_read: r#"
        head -c 65536 /dev/urandom >lower/small; head -c 65537 /dev/urandom >lower/large; : >lower/empty
        RUST_LOG=debug exec_mount -f 2>log &
        pid=$!
        until mounted merged; do ended $pid && complain "$(cat log)"; done
        for file in small empty f large; do
            grep -q ' READ ' log && complain "read before $file: $(grep ' READ ' log)"
            cmp lower/$file merged/$file
        done
        grep -q ' READ ' log || complain 'the large file was not read'
        # Nor is anything read again.
        reads=$(grep -c ' READ ' log)
        for round in 1 2 3; do for file in small empty f large; do cmp lower/$file merged/$file; done; done
        is "$reads" grep -c ' READ ' log
        # What was not copied up is in the cache, what was not changed remains there.
        chmod 600 merged/large
        for round in 1 2 3; do cmp lower/large merged/large; done
        is "$reads" grep -c ' READ ' log
        "$OVLFUSE" umount merged
        wait $pid"#;

    // One WRITE for each write(2), and nothing before it.
    [root user userns] written_as_it_comes: r#"
        RUST_LOG=debug exec_mount -f -o passthrough=off 2>log &
        pid=$!
        until mounted merged; do ended $pid && complain "$(cat log)"; done
        head -c 1000000 /dev/urandom >random
        dd if=random of=merged/new bs=10000 2>dd.log || complain "$(cat dd.log)"
        is 100 grep -c ' WRITE ' log
        grep -q ' GETXATTR ' log && complain "$(grep ' GETXATTR ' log)"
        grep -q ' READ ' log && complain "read: $(grep ' READ ' log)"
        exec 5>merged/beside
        echo one >&5
        # Who reads beside it goes past the cache too, and afterwards nobody.
        reads() { grep -c ' READ ' log; }
        for expected in 2 4; do is one cat merged/beside; is $expected reads; done
        exec 5>&-
        until [[ $(grep -c ' RELEASE ' log) == $(grep -cE ' (OPEN|CREATE) ' log) ]]; do :; done
        for expected in 5 5; do is one cat merged/beside; is $expected reads; done
        cmp random merged/new
        is '' "$OVLFUSE" umount merged
        wait $pid"#;

    // As root no WRITE but to append, and READ only of what is small and opened for nothing else.
    [root] read_and_written_by_the_kernel: r#"
        RUST_LOG=debug exec_mount -f 2>log &
        pid=$!
        until mounted merged; do ended $pid && complain "$(cat log)"; done
        head -c 1000000 /dev/urandom >random
        # O_CREAT and O_TRUNC, neither, O_SYNC.
        for way in 'conv=fsync' 'conv=notrunc' 'oflag=sync'; do
            dd if=random of=merged/new bs=10000 $way 2>dd.log || complain "$(cat dd.log)"
        done
        is lower cat merged/f
        exec 5<>merged/f
        is lower cat <&5
        echo more >&5
        is $'lower\nmore' cat merged/f
        exec 5>&-
        { cat random; head -c 67000000 /dev/zero; } >large
        cp large merged/large
        cmp large merged/large
        grep -E ' (READ|WRITE) ' log && complain 'asked the daemon'
        echo most >>merged/f
        is 1 grep -c ' WRITE ' log
        # It is no longer read in any other way: a mapping could have outlived that file.
        is $'lower\nmore\nmost' cat merged/f
        grep ' READ ' log && complain 'read it through the cache'
        cmp random merged/new
        grep ' READ ' log || complain 'did not ask the daemon'
        is '' "$OVLFUSE" umount merged
        cmp random upper/new
        wait $pid"#;

    [root user userns] a_signal_while_files_are_open: r#"
        mount_here
        exec 5>>merged/f
        pid=$(daemons)
        kill -TERM "$pid"
        until ! mounted merged; do ended "$pid" && complain "ended, and the mount is still there"; done
        echo more >&5 || complain "the open file no longer works"
        exec 5>&-
        wait_for "$pid"
        is $'lower\nmore' cat upper/f"#;

    [root userns] umount_8_ends_it: r#"
        mount_here
        pid=$(daemons)
        umount merged
        wait_for "$pid""#;

    [root user] fusermount3_ends_it: r#"
        mount_here
        pid=$(daemons)
        fusermount3 -u merged
        wait_for "$pid""#;

    [root user userns] umount_of_a_busy_mount: r#"
        mount_here
        exec 5<merged/f
        refused 9 'in use' "$OVLFUSE" umount merged
        is lower cat merged/f
        exec 5<&-
        is '' "$OVLFUSE" umount "$here/merged/"
        refused 9 'not a mount point' "$OVLFUSE" umount merged"#;

    [root user userns] a_killed_daemon_can_be_cleared_away: r#"
        mount_here
        pid=$(daemons)
        kill -KILL "$pid"
        wait_for "$pid"
        until [[ $(cat merged/f 2>&1) == *'not connected'* ]]; do :; done
        "$OVLFUSE" umount merged 2>/dev/null
        mount_here
        is lower cat merged/f
        "$OVLFUSE" umount merged"#;

    // What a mount before it left in work, deeper than there may be descriptors.
    [root user userns] a_deep_tree_in_work: r#"
        mount_here
        "$OVLFUSE" umount merged
        (mkdir -p work/work; chmod 700 work/work; cd work/work
         for i in {1..400}; do mkdir x y 0; touch x/f y/f 0/f; chmod 400 y 0; cd x; done)
        [[ $CONTEXT == user ]] && (cd work/work && chmod 500 x/x/x)
        ulimit -n 256
        mount_here
        is '' find work -name f
        is lower cat merged/f
        "$OVLFUSE" umount merged"#;

    // Whoever can change a lower layer makes the daemon open no device.
    [root] devices_in_place_of_files: r#"
        mount_here
        is lower cat merged/f
        mv lower/f lower/moved
        mknod lower/f c 1 5
        [[ $(cat merged/f 2>&1) == *'Permission denied'* ]] || complain "$(cat merged/f)"
        "$OVLFUSE" umount merged"#;

    // Who made the layer decides how deep it is, not how much memory that takes.
    [root] a_deep_lower_layer: r#"
        deepen='
import os
os.chdir("lower")
for _ in range(1000):
    os.mkdir("n" * 250)
    os.chdir("n" * 250)'
        python3 -c "$deepen"
        mount_here
        is 1000 bash -c 'find merged -name "n*" -printf x | wc -c'
        memory=$(awk '/^VmHWM/ { print $2 }' "/proc/$(daemons)/status")
        (( memory < 65536 )) || complain "$memory KiB"
        "$OVLFUSE" umount merged
        rm -r lower"#;

    [root user userns] demo: r#"
        "$OVLFUSE" demo >shown 2>&1 || complain "exit status $?: $(cat shown)"
        for part in '(whiteout)' 'overlay.opaque="y"' 'base/etc/hostname: same'; do
            grep -qF "$part" shown || complain "$part is not in: $(cat shown)"
        done
        ! grep -q CHANGED shown
        is '' ls -A tmp"#;
}
