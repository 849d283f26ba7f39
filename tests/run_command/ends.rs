//! How it ends: zombies, signals, the terminal, and processes that are killed.

scripts! {
    [root user userns] orphans_are_reaped: r#"
        run sh -c '
            for i in 1 2 3 4 5; do sh -c "sleep 0.01 & " ; done
            while grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null || pgrep -x sleep; do :; done' >/dev/null
        # What still runs when the command ends, ends.
        run sh -c 'sleep 1000 & exit 0'
        nothing_left"#;

    // A shell's background job has SIGINT and SIGQUIT ignored; `at_a_terminal` has those.
    [root user userns] signals_are_handed_on: r#"
        for signal in TERM HUP USR1 USR2; do
            "$OVLFUSE" run -v "$here:/here" "$TREE" -- bash -c "trap 'exit 7' $signal; echo >/here/up; while :; do sleep 0.01; done" &
            pid=$!
            until [[ -e up ]]; do ended $pid && complain "$signal: ended"; done
            rm up
            kill -$signal $pid
            got=0; wait $pid || got=$?
            [[ $got == 7 ]] || complain "$signal: exit status $got"
        done
        nothing_left"#;

    [root user userns] a_killed_caller: r#"
        "$OVLFUSE" run -v "$here:/here" "$TREE" -- sh -c 'chown -R 33 /srv; echo >/here/up; sleep 1000 & sleep 1000' &
        pid=$!
        until [[ -e up ]]; do ended $pid && complain ended; done
        [[ -d $(echo tmp/ovlfuse-run-*/upper/srv) ]]
        all=$(daemons)
        (($(wc -w <<<"$all") >= 4)) || complain "processes: $all"
        kill -KILL $pid
        for process in $all; do wait_for "$process"; done
        nothing_left"#;

    [root user userns] a_killed_daemon: r#"
        "$OVLFUSE" run -v "$here:/here" "$TREE" -- sh -c 'echo >/here/up; sleep 1000' 2>said &
        pid=$!
        until [[ -e up ]]; do ended $pid && complain ended; done
        for process in $(daemons); do
            if [[ -n $(find "/proc/$process/fd" -lname /dev/fuse 2>/dev/null) ]]; then kill -KILL "$process"; fi
        done
        got=0; wait $pid || got=$?
        is 125 echo $got
        grep -q 'was lost' said || complain "$(cat said)"
        nothing_left"#;

    [user] a_killed_supervisor: r#"
        "$OVLFUSE" run -v "$here:/here" "$TREE" -- sh -c 'echo >/here/up; sleep 1000' 2>said &
        pid=$!
        until [[ -e up ]]; do ended $pid && complain ended; done
        all=$(daemons)
        kill -KILL "$(pgrep -P $pid)"
        got=0; wait $pid || got=$?
        is 125 echo $got
        for process in $all; do wait_for "$process"; done
        ! grep ovlfuse-run /proc/self/mountinfo
        # Nobody is left in the namespace who could remove it.
        [[ -d $(echo tmp/ovlfuse-run-*) ]]"#;

    [root user userns] a_deep_tree_is_thrown_away: r#"
        ulimit -n 256
        run sh -c 'cd /srv && for i in $(seq 400); do mkdir d && cd d && : >f || exit 1; done'
        nothing_left"#;

    // Where mounts are shared, as systemd makes them.
    [root] another_mount_meanwhile: r#"
        unshare --mount --propagation private bash -euc '
            mount --make-rshared /
            mkdir upper
            "$OVLFUSE" mount "$TREE:$PWD/upper" merged
            "$OVLFUSE" run -v "$PWD:/here" "$TREE" -- sh -c "echo >/here/up; sleep 1000" &
            until [[ -e up ]]; do [[ -e /proc/$! ]]; done
            "$OVLFUSE" umount merged
            kill $!
            ! wait $!'
        nothing_left"#;

    [root user] at_a_terminal: r#"
        timeout 100 python3 terminal.py "$OVLFUSE" "$TREE" || complain "exit status $?"
        nothing_left"#;
}
