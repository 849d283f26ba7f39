//! What the command is, sees and leaves.

scripts! {
    [root user userns] exit_codes: r#"
        code 0 run true
        code 3 run sh -c 'exit 3'
        code 143 run sh -c 'kill -TERM $$'
        refused 127 'nope: No such file' run nope
        refused 126 '/etc/passwd: Permission denied' run /etc/passwd
        refused 125 'missing does not exist' "$OVLFUSE" run missing -- true
        refused 125 '--workdir /missing' "$OVLFUSE" run -w /missing "$TREE" -- true
        refused 125 '--volume missing' "$OVLFUSE" run -v missing:/m "$TREE" -- true
        refused 2 'absolute' "$OVLFUSE" run -v tmp:m "$TREE" -- true
        nothing_left"#;

    [root user userns] what_the_command_sees: r#"
        is 0 run id -u
        is ovlfuse run cat /proc/1/comm
        is $'/root\nunset' run sh -c 'echo $HOME; echo ${SECRET-unset}'
        SECRET=x is $'1\nx' "$OVLFUSE" run -e A=1 -e SECRET "$TREE" -- sh -c 'echo $A; echo $SECRET'
        is /usr/share "$OVLFUSE" run -w /usr/share "$TREE" -- pwd
        is box "$OVLFUSE" run --hostname box "$TREE" -- hostname
        is "$(hostname)" run hostname
        is '' run sh -c 'for name in null zero full random urandom tty; do [ -c /dev/$name ] || echo $name; done'
        is through run sh -c 'echo through >/dev/null; echo through | cat /dev/stdin'
        is '' run sh -c 'ls -A /tmp; ls -A /dev/shm; echo x >/tmp/x; echo x >/dev/shm/x'
        run sh -c '! touch /sys/x 2>/dev/null && test -d /sys/kernel'
        is "$(cat /etc/resolv.conf)" run cat /etc/resolv.conf
        is 3 run python3 -c 'import os; m, s = os.openpty(); print(1 + 2)'
        is '' run sh -c 'ls /proc/1/fd/ | while read fd; do [ -d /proc/1/fd/$fd/. ] && echo $fd; done; true'"#;

    [root user userns] pipes: r#"
        is through run cat <<<through
        is 100000 bash -c 'seq 100000 | "$0" run "$1" -- cat | wc -l' "$OVLFUSE" "$TREE"
        is out bash -c '"$0" run "$1" -- sh -c "echo out; echo err >&2" 2>/dev/null' "$OVLFUSE" "$TREE""#;

    [root user userns] network: r#"
        is lo "$OVLFUSE" run --net none "$TREE" -- sh -c 'sed -n "s/ *\(.*\):.*/\1/p" /proc/net/dev'
        is ok "$OVLFUSE" run --net none "$TREE" -- python3 -c '
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
print("ok")'
        is "$(cut -d: -f1 -s /proc/net/dev)" run cut -d: -f1 -s /proc/net/dev"#;

    [root user userns] volumes: r#"
        mkdir data
        echo one >data/one
        volumes=(-v data:/data -v "$here/data:/new/deep/ro:ro" -v data/one:/etc/one)
        is $'one\none\none' "$OVLFUSE" run "${volumes[@]}" "$TREE" -- cat /data/one /new/deep/ro/one /etc/one
        code 0 "$OVLFUSE" run "${volumes[@]}" "$TREE" -- sh -c '! touch /new/deep/ro/x 2>/dev/null && echo two >/data/two'
        is two cat data/two
        # A layer's symbolic link leads nowhere but into the tree.
        mkdir links
        ln -s "$here" links/out
        refused 125 '/out/data cannot be made' "$OVLFUSE" run -v data:/out/data "$TREE:links" -- true
        is $'data\nlinks' ls -d data* links*
        nothing_left"#;

    [root user userns] changes_vanish: r#"
        run sh -c 'echo x >/etc/x; rm -r /usr/share/doc; mkdir -p /a/b; mknod /a/p p; chmod 000 /a/b'
        run sh -c '[ ! -e /etc/x ] && [ -d /usr/share/doc ]'
        nothing_left"#;

    // Needs the user's further ids.
    [root user userns] other_owners: r#"
        run sh -c '
            mkdir -m 700 /srv/d && chown 33:33 /srv/d && cd /srv/d &&
            setpriv --reuid=33 --regid=33 --clear-groups sh -c "mkdir -m 0 closed; echo x >file" &&
            [ "$(stat -c %u:%g file)" = 33:33 ]'
        nothing_left"#;

    [user] a_user_without_further_ids: r#"
        # Where newuidmap cannot be found there is one id.
        mkdir bin-only
        for program in sh cat; do ln -s "$(command -v $program)" bin-only/; done
        is 0 env PATH="$here/bin-only" "$OVLFUSE" run "$TREE" -- id -u
        is 1 env PATH="$here/bin-only" "$OVLFUSE" run "$TREE" -- awk '{ n += $3 } END { print n }' /proc/self/uid_map
        nothing_left"#;

    [root user userns] kept_changes: r#"
        keep() { "$OVLFUSE" run --upper keep "$TREE" -- "$@"; }
        keep sh -c 'echo x >/etc/x; rm -r /usr/share/doc/bash; chown 33 /etc/hostname /etc/x'
        is x keep cat /etc/x
        keep sh -c '[ ! -e /usr/share/doc/bash ] && [ "$(stat -c %u /etc/x)" = 33 ]'
        is "$(stat -c %a "$TREE")" stat -c %a keep
        [[ -d .keep.ovlfuse-work ]]
        nothing_left
        # The kernel's overlayfs sees the same.
        as_root=(unshare --user --map-root-user --map-auto --mount)
        [[ $(id -u) != 0 ]] || as_root=(unshare --mount)
        mkdir work
        is $'x\n33' "${as_root[@]}" sh -c '
            mount -t overlay overlay -o "userxattr,lowerdir=$TREE,upperdir=keep,workdir=work" merged &&
            cat merged/etc/x && [ ! -e merged/usr/share/doc/bash ] && stat -c %u merged/etc/x'"#;

    [root user userns] programs_at_work: r#"
        "$OVLFUSE" run -v "$PACKAGE:/mnt/hello.deb:ro" "$TREE" -- sh -ec '
            dpkg -i /mnt/hello.deb >/dev/null
            [ "$(hello)" = "Hello, world!" ]
            apt-get -q remove -y hello >/dev/null
            [ ! -e /usr/bin/hello ]
            echo "int main(void) { return 7; }" >/root/a.c
            gcc -o /root/a /root/a.c
            python3 -m compileall -q /usr/lib/python3*/json
            code=0; /root/a || code=$?; [ $code = 7 ]' 2>log || complain "$(cat log)"
        nothing_left"#;

    [user] few_descriptors: r#"
        ulimit -n 256
        run sh -c 'cd /root; ls -lR /usr/lib/python3* >/dev/null; mkdir -p $(seq -s/ 100); [ "$(ulimit -n)" = 256 ]'
        nothing_left"#;

    [user] two_at_once: r#"
        mkfifo a b
        run sh -c 'echo 1 >/etc/hostname; echo >/here/a; read x </here/b; cat /etc/hostname' >first &
        read -r x <a
        is debian run sh -c 'sed s/.*/debian/ /etc/hostname; echo >/here/b'
        wait $!
        is 1 cat first
        nothing_left"#;

    [root] the_machine_is_protected: r#"
        run sh -c '! echo x 2>/dev/null >/proc/sys/kernel/core_pattern && ! echo h 2>/dev/null >/proc/sysrq-trigger'
        run sh -c '! touch /sys/kernel/x 2>/dev/null'
        # On the tree of the machine itself, changes have no place on disk.
        is changed "$OVLFUSE" run / -- sh -c 'echo changed >/etc/ovlfuse-test && cat /etc/ovlfuse-test'
        [[ ! -e /etc/ovlfuse-test ]]
        nothing_left"#;
}
