//! The options, as tables: what a list does to the configuration, and what is refused.

use super::*;

/// Several byte strings.
type List<'a> = &'a [&'a [u8]];

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn parse(lists: &[&[u8]]) -> Result<(Config, Vec<String>), MountError> {
    let mut options = Options::new(true);
    for list in lists {
        options.apply(os(list))?;
    }
    let warnings = options.warnings().to_vec();
    Ok((options.into_config("/m".into())?, warnings))
}

fn config(list: &str) -> Config {
    parse(&[b"lowerdir=/l,upperdir=/u", list.as_bytes()]).unwrap().0
}

fn paths(names: &[&[u8]]) -> Vec<PathBuf> {
    names.iter().map(|name| PathBuf::from(os(name))).collect()
}

#[test]
fn layer_options_name_the_layers_in_the_kernels_order() {
    let (config, warnings) = parse(&[b"lowerdir=top:bottom,upperdir=u,workdir=w"]).unwrap();
    assert_eq!(config.lowers, paths(&[b"top", b"bottom"]));
    assert_eq!(config.upper, Some(Upper { dir: "u".into(), work: Some("w".into()) }));
    assert_eq!(config.mountpoint, PathBuf::from("/m"));
    assert!(!config.mount.read_only);
    assert!(warnings.is_empty());
}

#[test]
fn lowers() {
    let cases: &[(List<'_>, List<'_>)] = &[
        (&[b"lowerdir=a"], &[b"a"]),
        (&[b"lowerdir=a:b"], &[b"a", b"b"]),
        (&[b"lowerdir=a\\:b:c\\,d:e\\\\f"], &[b"a:b", b"c,d", b"e\\f"]),
        (&[b"lowerdir=\xff:\xfe\\:"], &[b"\xff", b"\xfe:"]),
        (&[b"lowerdir=a:b", b"lowerdir=c"], &[b"c"]),
        (&[b"lowerdir=a,lowerdir=,lowerdir=b"], &[b"b"]),
        (&[b"lowerdir+=a", b"lowerdir+=b:c"], &[b"a", b"b:c"]),
        (&[b"lowerdir+=a,lowerdir=b"], &[b"b"]),
        (&[b"lowerdir=a=b"], &[b"a=b"]),
        (&[b"lowerdir=a::b", b"lowerdir=c"], &[b"c"]),
    ];
    for (lists, lowers) in cases {
        let (config, _) = parse(lists).unwrap();
        assert_eq!(config.lowers, paths(lowers), "{lists:?}");
        assert!(config.mount.read_only && config.upper.is_none());
    }
}

#[test]
fn data_only_layers() {
    type Case<'a> = (&'a [u8], List<'a>, List<'a>);
    let cases: &[Case<'_>] = &[
        (b"lowerdir=a::b", &[b"a"], &[b"b"]),
        (b"lowerdir=a:b::c::d", &[b"a", b"b"], &[b"c", b"d"]),
        (b"lowerdir=a::b\\:\\:c", &[b"a"], &[b"b::c"]),
        (b"lowerdir+=a,datadir+=b,datadir+=c:d", &[b"a"], &[b"b", b"c:d"]),
    ];
    for (list, lowers, data) in cases {
        let (config, _) = parse(&[list]).unwrap();
        assert_eq!(config.lowers, paths(lowers), "{}", list.escape_ascii());
        assert_eq!(config.data_lowers, paths(data), "{}", list.escape_ascii());
    }
}

#[test]
fn upper_and_work_lose_their_escapes_and_the_last_one_counts() {
    let (config, _) =
        parse(&[b"lowerdir=l,upperdir=x", b"upperdir=a\\,b\\:c\\\\:d\xff,workdir=w\\,"]).unwrap();
    let upper = config.upper.unwrap();
    assert_eq!(upper.dir, PathBuf::from(os(b"a,b:c\\:d\xff")));
    assert_eq!(upper.work, Some("w,".into()));
}

#[test]
fn empty_items_mean_nothing() {
    let plain = parse(&[b"lowerdir=l,upperdir=u,workdir=w,volatile"]).unwrap();
    let with_gaps = parse(&[b"", b",lowerdir=l,upperdir=u,workdir=w,,volatile,", b","]).unwrap();
    assert_eq!(plain, with_gaps);
}

#[test]
fn behaviour() {
    type Check = fn(&Config) -> bool;
    let cases: &[(&str, Check)] = &[
        ("", |c| c.fsync == Fsync::Auto && !c.userxattr && c.dot_wh),
        ("volatile", |c| c.fsync == Fsync::Volatile),
        ("", |c| !c.no_open && c.passthrough == Passthrough::Auto),
        ("no_open", |c| c.no_open),
        ("passthrough", |c| c.passthrough == Passthrough::On),
        ("passthrough=on", |c| c.passthrough == Passthrough::On),
        ("passthrough,passthrough=off", |c| c.passthrough == Passthrough::Off),
        ("passthrough=off,passthrough=auto", |c| c.passthrough == Passthrough::Auto),
        ("fsync=volatile", |c| c.fsync == Fsync::Volatile),
        ("fsync=strict", |c| c.fsync == Fsync::Strict),
        ("volatile,fsync=auto", |c| c.fsync == Fsync::Auto),
        ("fsync=0", |c| c.fsync == Fsync::Volatile),
        ("fsync=1", |c| c.fsync == Fsync::Auto),
        ("userxattr", |c| c.userxattr),
        ("", |c| c.redirect_dir.is_none()),
        ("redirect_dir=on", |c| c.redirect_dir == Some(RedirectDir::On)),
        ("redirect_dir=follow", |c| c.redirect_dir == Some(RedirectDir::Follow)),
        ("redirect_dir=nofollow", |c| c.redirect_dir == Some(RedirectDir::NoFollow)),
        ("redirect_dir=copy", |c| c.redirect_dir == Some(RedirectDir::Copy)),
        ("redirect_dir=on,redirect_dir=off", |c| c.redirect_dir.is_none()),
        ("", |c| !c.index),
        ("index=on", |c| c.index),
        ("index=on,index=off", |c| !c.index),
        ("", |c| c.stored.is_none() && c.view.acl),
        ("xattr_permissions=1", |c| c.stored == Some(Stored::Privileged)),
        ("xattr_permissions=2", |c| c.stored == Some(Stored::User) && !c.view.acl),
        ("xattr_permissions=2,xattr_permissions=0", |c| c.stored.is_none() && c.view.acl),
        ("xino=on", |c| c.fixed_lowers),
        ("metacopy=off", |c| !c.metacopy && c.redirect_dir.is_none()),
        ("metacopy=on", |c| c.metacopy && c.redirect_dir == Some(RedirectDir::On)),
        ("metacopy=on,redirect_dir=on,userxattr", |c| c.metacopy),
        ("redirect_dir=off,metacopy=on,metacopy=off", |c| !c.metacopy),
        ("whiteouts=kernel", |c| !c.dot_wh),
        ("whiteouts=kernel,whiteouts=dot_wh", |c| c.dot_wh),
        ("threads=3", |c| c.threads == 3),
        ("threads=256", |c| c.threads == 256),
        ("threaded=0", |c| c.threads == 1),
        ("threaded=1", |c| c.threads == DEFAULT_THREADS),
    ];
    for (list, check) in cases {
        assert!(check(&config(list)), "{list}");
    }
}

#[test]
fn views() {
    type Check = fn(&ViewOptions) -> bool;
    let cases: &[(&str, Check)] = &[
        ("", |v| *v == ViewOptions::default()),
        ("uidmapping=0:100:5", |v| v.uids.shown(3) == 103 && v.gids.shown(3) == 3),
        ("gidmapping=0:100:5:5:0:1", |v| v.gids.shown(5) == 0 && v.uids.shown(3) == 3),
        ("squash_to_root", |v| v.uids.shown(3) == 0 && v.gids.shown(3) == 0),
        ("squash_to_uid=9,squash_to_root", |v| v.uids.shown(3) == 9 && v.gids.shown(3) == 0),
        ("squash_to_gid=9", |v| v.uids.shown(3) == 3 && v.gids.shown(3) == 9),
        ("static_nlink", |v| v.static_nlink),
        ("noacl", |v| !v.acl),
        ("noxattrs", |v| !v.xattrs),
        ("noxattrs=1", |v| !v.xattrs),
        ("noxattrs=0", |v| v.xattrs),
        ("timeout=0", |v| v.timeout.is_zero()),
        ("timeout=1.5", |v| v.timeout.as_millis() == 1500),
        ("timeout=1e12", |v| v.timeout == FOR_EVER),
    ];
    for (list, check) in cases {
        assert!(check(&config(list).view), "{list}");
    }
}

#[test]
fn mount_flags() {
    type Check = fn(&MountFlags) -> bool;
    let cases: &[(&str, Check)] = &[
        ("", |m| *m == MountFlags::default()),
        ("ro", |m| m.read_only),
        ("ro,rw", |m| !m.read_only),
        ("nodev,nosuid,noexec,noatime", |m| !m.dev && !m.suid && !m.exec && !m.atime),
        ("nodev,dev,nosuid,suid", |m| m.dev && m.suid),
        ("noexec,exec,noatime,atime", |m| m.exec && m.atime),
        ("allow_other", |m| m.allow_other == Some(true)),
        ("fsname=a\\,b", |m| m.fsname == Some("a,b".into())),
        ("subtype=x", |m| m.subtype == "x"),
    ];
    for (list, check) in cases {
        assert!(check(&config(list).mount), "{list}");
    }
}

#[test]
fn options_without_effect_change_nothing() {
    let plain = config("");
    let mut lists: Vec<String> = NO_OPS.iter().map(ToString::to_string).collect();
    for choice in CHOICES {
        lists.extend(choice.accepted.iter().map(|value| format!("{}={value}", choice.name)));
    }
    lists.extend(
        ["x-systemd.automount", "X-mount.mkdir=0755", "user=me", "comment=c"].map(String::from),
    );
    lists.extend(["xino=auto", "xino=on,xino=auto", "noatime,nodiratime,atime"].map(String::from));
    for list in lists {
        let (config, warnings) = parse(&[b"lowerdir=/l,upperdir=/u", list.as_bytes()]).unwrap();
        assert_eq!((config, warnings), (plain.clone(), Vec::new()), "{list}");
    }
}

#[test]
fn options_with_less_effect_than_their_name_warn() {
    for list in ["xino=off", "nodiratime"] {
        let (_, warnings) = parse(&[b"lowerdir=/l", list.as_bytes()]).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains(list), "{list}: {warnings:?}");
    }
}

#[test]
fn refused_options_are_named() {
    let mut lists: Vec<String> = REFUSED.iter().map(|(name, _)| format!("{name}=x")).collect();
    for choice in CHOICES {
        lists.extend(choice.refused.iter().map(|(value, _)| format!("{}={value}", choice.name)));
    }
    lists.push("context=\"u:r:t:s0:c1,c2\"".into());
    for list in lists {
        let error = parse(&[b"lowerdir=l", list.as_bytes()]).unwrap_err();
        assert_eq!(error.failure, Failure::Usage, "{list}");
        assert!(error.message.contains(&list), "{list}: {error}");
    }
}

#[test]
fn bad_options() {
    let cases: &[(&str, &str)] = &[
        ("wibble", "'wibble' is unknown"),
        ("wibble=1", "'wibble=1' is unknown"),
        ("ro=1", "'ro=1' is unknown"),
        ("index=maybe", "the values are off, on"),
        ("redirect_dir", "the values are off, nofollow, follow, on, copy"),
        ("fsync", "the values are volatile, auto, strict, 0, 1"),
        ("whiteouts=all", "the values are kernel, dot_wh"),
        ("xino=2", "the values are auto, on, off"),
        ("threads=0", "a number from 1 to 256"),
        ("threads=257", "a number from 1 to 256"),
        ("threads=-1", "a number from 1 to 256"),
        ("threads=x", "a number from 1 to 256"),
        ("threads", "'threads' needs a value"),
        ("uidmapping=0:1", "DISK:VIEW:COUNT"),
        ("gidmapping=", "needs a value"),
        ("squash_to_uid=-1", "a number as id"),
        ("squash_to_gid=4294967295", "a number as id"),
        ("squash_to_root=1", "is unknown"),
        ("timeout=-1", "a number of seconds"),
        ("timeout=nan", "a number of seconds"),
        ("noxattrs=2", "the values are 0, 1"),
        ("upperdir=", "'upperdir=' needs a value"),
        ("workdir", "'workdir' needs a value"),
        ("lowerdir=a:", "empty path"),
        ("lowerdir=:a", "empty path"),
        ("lowerdir=a:::b", "empty path"),
        ("lowerdir=a:b::c:d", "data-only"),
        ("lowerdir=::c", "empty path"),
        ("lowerdir=a::", "empty path"),
        ("lowerdir=a,lowerdir+=b", "cannot follow"),
        ("lowerdir=a,datadir+=b", "'datadir+' cannot follow 'lowerdir'"),
        ("lowerdir+=a,datadir+=b,lowerdir+=c", "cannot follow 'datadir+'"),
        ("datadir+=a", "cannot come before"),
        ("xattr_permissions=3", "the values are 0, 1, 2"),
        ("lowerdir=l,xattr_permissions=2,index=on", "excludes index=on"),
        ("metacopy=maybe", "the values are off, on"),
        ("lowerdir=l,upperdir=u,metacopy=on,redirect_dir=off", "needs redirect_dir=on"),
        ("lowerdir=l,upperdir=u,metacopy=on,redirect_dir=follow", "needs redirect_dir=on"),
        ("lowerdir=l,upperdir=u,metacopy=on,redirect_dir=copy", "needs redirect_dir=on"),
        ("lowerdir=l,metacopy=on,redirect_dir=nofollow", "needs redirect_dir=on"),
        ("lowerdir=", "no lower layer"),
        ("upperdir=u", "no lower layer"),
    ];
    for (list, part) in cases {
        let error = parse(&[list.as_bytes()]).unwrap_err();
        assert_eq!(error.failure, Failure::Usage, "{list}");
        assert!(error.message.contains(part), "{list}: {error}");
        assert_eq!(error.message.lines().count(), 1, "{list}: {error}");
    }
}

#[test]
fn unknown_options_are_warned_of_when_tolerated() {
    let mut options = Options::new(false);
    options.tolerate_unknown();
    options.apply(os(b"wibble=1,lowerdir=l")).unwrap();
    assert_eq!(options.warnings(), ["option 'wibble=1' is unknown and ignored"]);
    assert!(options.apply(os(b"nfs_export=on")).is_err());
}

#[test]
fn five_hundred_lowers_are_the_most() {
    let list = |count: usize| format!("lowerdir={}", vec!["l"; count].join(":"));
    assert_eq!(parse(&[list(MAX_LOWERS).as_bytes()]).unwrap().0.lowers.len(), MAX_LOWERS);
    let error = parse(&[list(MAX_LOWERS + 1).as_bytes()]).unwrap_err();
    assert_eq!(error.failure, Failure::Layer);
}

#[test]
fn a_stack_is_read_bottom_to_top() {
    type Case<'a> = (&'a [u8], bool, List<'a>, Option<&'a [u8]>);
    let cases: &[Case<'_>] = &[
        (b"l:u", false, &[b"l"], Some(b"u")),
        (b"l1:l2:u", false, &[b"l2", b"l1"], Some(b"u")),
        (b"l\\:1:u\\:", false, &[b"l:1"], Some(b"u:")),
        (b"l,1:u\xff", false, &[b"l,1"], Some(b"u\xff")),
        (b"l", true, &[b"l"], None),
        (b"l1:l2", true, &[b"l2", b"l1"], None),
    ];
    for (stack, read_only, lowers, upper) in cases {
        let mut options = Options::new(false);
        options.set_stack(os(stack), *read_only).unwrap();
        let config = options.into_config("m".into()).unwrap();
        assert_eq!(config.lowers, paths(lowers));
        assert_eq!(
            config.upper.map(|upper| upper.dir),
            upper.map(|upper| PathBuf::from(os(upper)))
        );
        assert_eq!(config.mount.read_only, *read_only);
    }
    for (stack, read_only) in
        [("l", false), ("", false), ("", true), ("l:", false), ("a::b", false)]
    {
        let error = Options::new(false).set_stack(OsStr::new(stack), read_only).unwrap_err();
        assert_eq!(error.failure, Failure::Usage, "{stack}");
    }
}

#[test]
fn the_work_directory_is_given_once() {
    let mut options = Options::new(false);
    options.set_work("w".into()).unwrap();
    assert!(options.set_work("w".into()).is_err());
}

#[test]
fn an_open_fuse_descriptor_as_mount_point_is_refused() {
    let mut options = Options::new(false);
    options.apply(os(b"lowerdir=l")).unwrap();
    assert!(options.into_config("/dev/fd/7".into()).is_err());
}
