//! An offer in a directory of its own, called by hand.

use super::*;
use rustix::net::connect;
use tempfile::TempDir;

fn names(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().expect("tempfile");
    file.write_all(text.as_bytes()).expect("write");
    io::Seek::rewind(&mut file).expect("seek");
    file.into()
}

fn offer(text: &str) -> (TempDir, Offer) {
    let directory = tempfile::tempdir().expect("tempdir");
    let offer = Offer::within(&directory.path().join("tools"), names(text)).expect("offered");
    (directory, offer)
}

fn connected(offer: &Offer) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("socket");
    connect(&socket, &SocketAddrUnix::new(offer.directory.join(SOCKET)).expect("short")).expect("listens");
    socket
}

/// Connects and says these packets; what of them is for the host.
fn said(offer: &mut Offer, packets: &[&[u8]]) -> (OwnedFd, Vec<Said>) {
    let socket = connected(offer);
    assert_eq!(offer.hear(Caller::New), None);
    let number = offer.made;
    let mut heard = Vec::new();
    for packet in packets {
        send(&socket, packet, SendFlags::NOSIGNAL).expect("room");
        heard.extend(offer.hear(Caller::Known(number)));
    }
    (socket, heard)
}

fn word(socket: &OwnedFd) -> String {
    let mut packet = [0; 1024];
    let (length, _) = recv(socket, &mut packet[..], RecvFlags::empty()).expect("a word or an end");
    String::from_utf8_lossy(&packet[..length]).into_owned()
}

fn piece(call: u64, text: &str, piece: Piece) -> Said {
    Said { call, function: "query_db".to_owned(), text: text.to_owned(), piece }
}

#[test]
fn commands_come_and_go() {
    let (directory, mut offer) = offer("query_db\nother\n");
    let bin = directory.path().join("tools/bin");
    let listed = || {
        let mut names: Vec<_> =
            fs::read_dir(&bin).expect("there").map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(), ["other", "query_db"]);
    offer.change(names("query_db\nnew\n")).expect("changed");
    assert_eq!(listed(), ["new", "query_db"]);
    offer.change(names("query_db {\"a\": 1}\nnew {}\n")).expect("changed");
    let schema = fs::read_to_string(directory.path().join("tools/schemas/query_db")).expect("there");
    assert_eq!(schema, "{\"a\": 1}");
    let script = fs::read_to_string(bin.join("new")).expect("there");
    assert_eq!(script, format!("#!{} call\n", directory.path().join("tools/call").display()));
    drop(offer);
    assert!(!directory.path().join("tools").exists());
}

#[test]
fn a_call_is_passed_on_piece_by_piece_and_answered_once() {
    let (_directory, mut offer) = offer("query_db");
    let (socket, heard) = said(&mut offer, &[b"query_db", b"m{\"a\"", b"l:1}"]);
    assert_eq!(heard, [piece(1, "{\"a\"", Piece::More), piece(1, ":1}", Piece::Last)]);
    let reply = Reply { call: 1, kind: ReplyKind::Error, at: 3, bytes: 4 };
    let texts = names("abcdefg");
    offer.reply(reply, &texts);
    offer.reply(reply, &texts);
    let mut packet = [0; 64];
    let (length, _) = recv(&socket, &mut packet[..], RecvFlags::empty()).expect("answered");
    assert_eq!(&packet[..length], [&b"e"[..], &3_u64.to_le_bytes(), &4_u64.to_le_bytes()].concat());
    assert_eq!(word(&socket), "", "closed");
    assert_eq!((offer.calls.len(), offer.waiting_bytes), (0, 0));
}

#[test]
fn what_makes_no_sense_is_not_passed_on() {
    let (_directory, mut offer) = offer("query_db");
    let long = [b'm'; PIECE_BYTES_MAX + 2];
    let cases: [(&[&[u8]], &str); 5] = [
        (&[b"other"], "rit is not offered to this cell"),
        (&[b"\xff"], "rit is not offered to this cell"),
        (&[b"query_db", b"x{}"], ""),
        (&[b"query_db", b"l\xff"], ""),
        (&[b"query_db", &long], ""),
    ];
    for (packets, told) in cases {
        let (socket, heard) = said(&mut offer, packets);
        assert_eq!((heard, word(&socket).as_str()), (vec![], told), "{packets:?}");
    }
    let (socket, heard) = said(&mut offer, &[b"query_db", b"m{", b"l\xff"]);
    assert_eq!(heard, [piece(6, "{", Piece::More), piece(6, "", Piece::Never)]);
    assert_eq!(word(&socket), "");
    assert_eq!((offer.calls.len(), offer.waiting_bytes), (0, 0));
}

#[test]
fn a_caller_that_goes_is_forgotten_unless_the_host_knows_its_call() {
    let (_directory, mut offer) = offer("query_db");
    let (socket, _) = said(&mut offer, &[b"query_db", b"m{"]);
    drop(socket);
    assert_eq!(offer.hear(Caller::Known(1)), Some(piece(1, "", Piece::Never)));
    let (socket, _) = said(&mut offer, &[b"query_db", b"l{}"]);
    drop(socket);
    assert_eq!(offer.hear(Caller::Known(2)), None);
    assert_eq!((offer.calls.len(), offer.waiting_bytes, offer.waited_for().len()), (1, 2, 1));
    offer.reply(Reply { call: 2, kind: ReplyKind::Text, at: 0, bytes: 0 }, &names(""));
    assert_eq!((offer.calls.len(), offer.waiting_bytes), (0, 0));
}

#[test]
fn there_are_only_so_many_and_so_much() {
    let (_directory, mut offer) = offer("query_db");
    let full = [b'm'; PIECE_BYTES_MAX + 1];
    let mut sockets = Vec::new();
    let (socket, _) = said(&mut offer, &[b"query_db"]);
    for _ in 0..ARGUMENT_BYTES_MAX / PIECE_BYTES_MAX {
        send(&socket, &full, SendFlags::NOSIGNAL).expect("room");
        assert!(offer.hear(Caller::Known(1)).is_some());
    }
    send(&socket, &full, SendFlags::NOSIGNAL).expect("room");
    assert_eq!(offer.hear(Caller::Known(1)), Some(piece(1, "", Piece::Never)));
    assert_eq!(word(&socket), format!("r{}", too_long()));
    while offer.calls.len() < CALLS_MAX {
        sockets.push(said(&mut offer, &[b"query_db", b"l{}"]).0);
        // Gone callers count until they are answered.
        drop(sockets.pop());
        let made = offer.made;
        offer.hear(Caller::Known(made));
    }
    let (socket, heard) = said(&mut offer, &[]);
    assert_eq!((heard, word(&socket)), (vec![], "r1024 calls are waiting already".to_owned()));
}
