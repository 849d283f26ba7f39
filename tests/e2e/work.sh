# What somebody does in a root file system; bash reads it inside the merged tree.
#
# $OTHER is a user id that files can be given to. Every command's exit status and
# output are checked; the last line says that the end was reached.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive
export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
umask 022
cd /

# is EXPECTED COMMAND…: the command succeeds and prints exactly that.
is() {
    local expected=$1 got
    shift
    got=$("$@" 2>&1) || { echo "$*: exit status $?: $got"; exit 1; }
    [[ $got == "$expected" ]] || { printf '%s:\n got: %s\nwant: %s\n' "$*" "$got" "$expected"; exit 1; }
}
# fails COMMAND…: the command fails.
fails() { ! "$@" >/dev/null 2>&1 || { echo "$* succeeds"; exit 1; }; }
step() { echo "step: $*"; }

step the layers, merged
is 'changed in layer 3' cat /etc/motd
is news ls /usr/share/lintian
fails stat /usr/share/doc/bash
fails stat /usr/share/perl5/Debconf
is 750 stat -c %a /usr/bin/mkfifo
is ok cat /opt/new/file

step a package
fails dpkg-query -W hello
dpkg -i /opt/hello.deb >/tmp/dpkg.out 2>&1 || { cat /tmp/dpkg.out; exit 1; }
is 'Hello, world!' hello
is 'install ok installed' dpkg-query -f '${Status}' -W hello
is '' dpkg --verify hello
test -f /usr/share/doc/hello/copyright
dpkg -r hello >/tmp/dpkg.out 2>&1 || { cat /tmp/dpkg.out; exit 1; }
fails hello
dpkg -i /opt/hello.deb >/tmp/dpkg.out 2>&1 || { cat /tmp/dpkg.out; exit 1; }
is 'Hello, world!' hello
is '' dpkg --audit

step a C program
mkdir -p /root/c
cat >/root/c/main.c <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int twice(int);
int main(void) { printf("%d %zu\n", twice(21), strlen("abc")); return EXIT_SUCCESS; }
END
echo 'int twice(int n) { return 2 * n; }' >/root/c/twice.c
is '' gcc -O1 -Wall -c -o /root/c/main.o /root/c/main.c
is '' gcc -O1 -Wall -c -o /root/c/twice.o /root/c/twice.c
is '' ar rcs /root/c/libtwice.a /root/c/twice.o
is '' gcc -o /root/c/main /root/c/main.o -L/root/c -ltwice
is '42 3' /root/c/main

step git
git config --global user.name ovl
git config --global user.email ovl@example.org
git config --global init.defaultBranch trunk
mkdir /root/origin
is 'Initialized empty Git repository in /root/origin/.git/' git init /root/origin
cd /root/origin
for n in $(seq 60); do mkdir -p "d$((n % 7))"; echo "file $n" >"d$((n % 7))/f$n"; done
is '' git add .
is '' git commit -q -m first
git mv d1/f1 d2/moved
git rm -q d3/f3
is '' git commit -q -m second
cd /
is '' git clone -q /root/origin /root/clone
is '' git clone -q --no-local file:///root/origin /root/wire
for clone in clone wire; do
    is '' git -C /root/$clone status --porcelain
    is '' git -C /root/$clone fsck --full --no-progress --strict
    is 2 git -C /root/$clone rev-list --count HEAD
    is 59 bash -c "git -C /root/$clone ls-files | wc -l"
    is '' diff -r --exclude=.git /root/origin /root/$clone
done
is '' git -C /root/clone gc -q
is '' git -C /root/clone fsck --full --no-progress --strict
is 'file 2' git -C /root/clone show HEAD:d2/f2

step python
is ok python3 -c 'import json, ssl, sqlite3, decimal, email.message, asyncio, xml.dom.minidom, http.client; print("ok")'
is '[[1, "a"]]' python3 -c '
import json, sqlite3
db = sqlite3.connect("/root/base.sqlite")
db.execute("pragma journal_mode=wal")
db.execute("create table t (n, s)")
db.execute("insert into t values (1, ?)", ("a",))
db.commit()
print(json.dumps(db.execute("select * from t").fetchall()))'
is 'a 0o100644' python3 -c '
import mmap, os, shutil, tempfile
with tempfile.TemporaryDirectory(dir="/root") as d:
    shutil.copytree("/etc/alternatives", d + "/copy", symlinks=True)
    with open(d + "/m", "w+b") as f:
        f.truncate(8192)
        with mmap.mmap(f.fileno(), 8192) as m:
            m[5000] = ord("a")
            m.flush()
        f.seek(5000)
        print(f.read(1).decode(), oct(os.stat(d + "/m").st_mode))'
is '' python3 -m compileall -q /usr/lib/python3.11/json /usr/lib/python3.11/email /usr/lib/python3/dist-packages

step removing
is '' rm -rf /usr/share/doc
fails ls /usr/share/doc
is '' mkdir /usr/share/doc
is '' ls -A /usr/share/doc
echo again >/usr/share/doc/bash
is again cat /usr/share/doc/bash
is '' rm -r /usr/share/man/man1
is '' mkdir -p /usr/share/man/man1/sub
is sub ls -A /usr/share/man/man1
is '' rm -r /usr/share/lintian
fails stat /usr/share/lintian
is '' find /usr/share/bash-completion -type f -delete
is '' bash -c "find /usr/share/bash-completion -type f"
fails rmdir /usr/share/bash-completion
is '' rm /usr/bin/gcov-12
is '' touch /usr/bin/gcov-12
is '0 644' stat -c '%s %a' /usr/bin/gcov-12

step renames
is '' mv /bin/echo /bin/echo2
is hi /bin/echo2 hi
fails stat /usr/bin/echo
is '' mv /bin/echo2 /bin/echo
is hi /bin/echo hi
is '' mv /usr/bin/factor /usr/bin/factor.dist
is '' ln -s factor.dist /usr/bin/factor
is '6: 2 3' /usr/bin/factor 6
# As dpkg replaces a file: a link to the old one, the new one beside it, renamed over.
is '' ln /usr/bin/sort /usr/bin/sort.dpkg-tmp
is '' cp -p /usr/bin/tac /usr/bin/sort.dpkg-new
is '' mv /usr/bin/sort.dpkg-new /usr/bin/sort
is '' cmp /usr/bin/sort /usr/bin/tac
is '' mv /usr/bin/sort.dpkg-tmp /usr/bin/sort
is $'a\nb' bash -c "printf 'b\na\n' | sort"
# A directory that only layers below have: mv copies what rename(2) refuses.
is '' mv /usr/include/linux /usr/include/linux-old
fails stat /usr/include/linux
test -f /usr/include/linux-old/fs.h
is '' mv /usr/include/linux-old /usr/include/linux
test -f /usr/include/linux/fs.h
# A new directory can be renamed, also over an empty one.
mkdir -p /srv/new/in /srv/empty
echo x >/srv/new/in/f
is '' mv -T /srv/new /srv/empty
is x cat /srv/empty/in/f

step owners, modes and times
is '' chmod 4711 /usr/bin/od
is 4711 stat -c %a /usr/bin/od
is '' chmod -R go-rx /usr/share/git-core
is 700 stat -c %a /usr/share/git-core/templates
is '' chown "$OTHER:$OTHER" /usr/bin/paste
is "$OTHER:$OTHER" stat -c %u:%g /usr/bin/paste
is '' chown -R "$OTHER" /etc/alternatives
is "$OTHER" stat -c %u /etc/alternatives/awk
is '' chmod 1777 /var/opt
is '' touch -d '2001-02-03 04:05:06.123456789 UTC' /etc/hosts /etc/profile
is '981173106 2001-02-03 04:05:06.123456789 +0000' env TZ=UTC stat -c '%Y %y' /etc/profile
is '' touch -d '1960-01-01 UTC' /etc/shells
is -315619200 stat -c %Y /etc/shells

step links
is '' ln /usr/bin/perl /root/perl
is '' cmp /usr/bin/perl /root/perl
is '1' /root/perl -e 'print 1'
is '' ln -s ../usr/bin/perl /root/perl-link
is ../usr/bin/perl readlink /root/perl-link
is '1' /root/perl-link -e 'print 1'
is '' ln -sfn /nowhere /etc/alternatives/awk
is /nowhere readlink /etc/alternatives/awk
is '' ln -sfn /usr/bin/mawk /etc/alternatives/awk
is 6 awk 'BEGIN { print 2 * 3 }'
echo one >/root/one
is '' ln /root/one /root/two
echo three >>/root/two
is $'one\nthree' cat /root/one
is '2 2' stat -c '%h %h' /root/two

step archives
is '' tar -C /etc -cf /root/etc.tar --exclude=./mtab .
mkdir /root/etc
is '' tar -C /root/etc --warning=no-timestamp -xpf /root/etc.tar
is '' tar -C /root/etc --compare -f /root/etc.tar
is '' cp -a /usr/lib/git-core /root/git-core
is '' diff -r --no-dereference /usr/lib/git-core /root/git-core

step sparse files
is '' truncate -s 64M /root/sparse
is '' dd if=/usr/bin/perl of=/root/sparse bs=4096 count=10 seek=1000 conv=notrunc status=none
is 67108864 stat -c %s /root/sparse
(($(stat -c %b /root/sparse) < 1000))
is '' cp --sparse=always /root/sparse /root/sparse2
is '' cmp /root/sparse /root/sparse2

step special files
is '' mkfifo /root/pipe
echo through >/root/pipe &
is through cat /root/pipe
wait

step the end
