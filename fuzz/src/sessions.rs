//! The session machines, with a peer that sends anything and a side of our own that does anything.

use rove_protocol::frame::{FrameDecoder, RawFrame};
use rove_protocol::ids::{ConversationId, PostNo, RequestId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{
    self, ControlDown, ControlUp, ConversationDown, ConversationUp, FetchDown, FetchUp, InboxDown, InboxUp, Limits,
};
use rove_protocol::registry::Anchor;
use rove_protocol::session::{client, server};

/// What happens next: the peer's next frame, or something that our side does with a small number.
enum Step {
    Frame(RawFrame),
    Own(u64),
}

/// Steps of the data: a byte whose lowest bit says which; for a frame then its length, its type and its body.
struct Steps<'a> {
    rest: &'a [u8],
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (choice, rest) = self.rest.split_first()?;
        if choice % 2 == 1 {
            self.rest = rest;
            return Some(Step::Own(u64::from(choice >> 1) % 8));
        }
        let length = usize::from(*rest.first()?);
        let frame = rest.get(..=length)?;
        self.rest = &rest[frame.len()..];
        let mut decoder = FrameDecoder::new(limits::FRAME);
        decoder.feed(frame);
        decoder.next_frame().ok().flatten().map(Step::Frame)
    }
}

/// What a server's machines take from any client.
pub fn check_server(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let steps = Steps { rest };
    match which % 5 {
        0 => server_control(steps),
        1 => server_conversation(steps),
        2 => server_inbox(steps),
        3 => server_fetch(steps),
        _ => server_streams(rest),
    }
}

fn server_control(steps: Steps<'_>) {
    let mut control = server::Control::new();
    for step in steps {
        match step {
            Step::Own(0) => control.welcomed(),
            Step::Own(number) => {
                let before = control.unanswered();
                let answered = control.answered(RequestId(number));
                assert_eq!(control.unanswered() + usize::from(answered), before);
            }
            Step::Frame(frame) => {
                let Ok(message) = ControlUp::decode(frame) else { return };
                let Some(message) = message else { continue };
                let open = control.is_open();
                match control.on_frame(message) {
                    Ok(ControlUp::Hello(_)) => assert!(control.has_hello() && !open),
                    Ok(_) => assert!(open),
                    Err(_) => return,
                }
            }
        }
        assert!(control.unanswered() <= limits::REQUESTS_IN_FLIGHT);
    }
}

fn server_conversation(steps: Steps<'_>) {
    let mut conversation = server::Conversation::new(&Limits::default());
    let mut opens = 0;
    for step in steps {
        match step {
            Step::Own(0) => conversation.opened(),
            Step::Own(number) => {
                let answered = conversation.answered(PostNo(number));
                assert!(!answered || conversation.is_open());
            }
            Step::Frame(frame) => {
                let Ok(message) = ConversationUp::decode(frame) else { return };
                let Some(message) = message else { continue };
                match conversation.on_frame(message) {
                    Ok(ConversationUp::Open(_)) => opens += 1,
                    Ok(_) => assert_eq!(opens, 1),
                    Err(_) => return,
                }
            }
        }
        assert!(opens <= 1 && conversation.unanswered() <= limits::UNANSWERED_POSTS);
    }
}

fn server_inbox(steps: Steps<'_>) {
    let mut inbox = server::Inbox::new();
    let mut opens = 0;
    for step in steps {
        let Step::Frame(frame) = step else { continue };
        let Ok(message) = InboxUp::decode(frame) else { return };
        let Some(message) = message else { continue };
        if inbox.on_frame(message).is_err() {
            return;
        }
        opens += 1;
        assert_eq!(opens, 1);
    }
}

fn server_fetch(steps: Steps<'_>) {
    let mut fetch = server::Fetch::new();
    for step in steps {
        match step {
            Step::Own(_) => {
                let had = fetch.unanswered() > 0;
                assert_eq!(fetch.answered(), had);
            }
            Step::Frame(frame) => {
                let Ok(message) = FetchUp::decode(frame) else { return };
                let Some(message) = message else { continue };
                if fetch.on_frame(message).is_err() {
                    return;
                }
            }
        }
        assert!(fetch.unanswered() <= limits::FETCHES_IN_FLIGHT);
    }
}

fn server_streams(data: &[u8]) {
    let mut streams = server::Streams::new(&Limits::default());
    let mut serving = 0usize;
    for byte in data {
        match streams.accept(u64::from(*byte)) {
            Ok(server::Admission::Serve(stream_type)) => {
                serving += 1;
                if byte % 3 == 0 {
                    streams.ended(stream_type);
                    serving -= 1;
                }
            }
            Ok(server::Admission::Stop(_)) => {}
            Err(_) => return,
        }
        assert!(serving <= limits::BIDI_STREAMS);
    }
}

/// What a client's machines take from any server.
pub fn check_client(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let steps = Steps { rest };
    match which % 4 {
        0 => client_control(steps),
        1 => client_conversation(steps),
        2 => client_inbox(steps),
        _ => client_fetch(steps),
    }
}

fn client_control(steps: Steps<'_>) {
    let mut control = client::Control::new();
    for step in steps {
        match step {
            Step::Own(number) => {
                let open = control.is_open();
                assert!(open || control.sent(RequestId(number)).is_err());
                let _ = control.sent(RequestId(number));
            }
            Step::Frame(frame) => {
                let Ok(message) = ControlDown::decode(frame) else { return };
                let Some(message) = message else { continue };
                let before = control.unanswered();
                match control.on_frame(message) {
                    Ok(ControlDown::Response(_)) => assert_eq!(control.unanswered() + 1, before),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        }
    }
}

fn client_conversation(steps: Steps<'_>) {
    let mut conversation = client::Conversation::new(Seq(3));
    for step in steps {
        match step {
            Step::Own(number) => {
                let _ = conversation.posted(PostNo(number));
            }
            Step::Frame(frame) => {
                let Ok(message) = ConversationDown::decode(frame) else { return };
                let Some(message) = message else { continue };
                let before = conversation.cursor();
                match conversation.on_frame(message) {
                    Ok(ConversationDown::Event(event)) => {
                        assert_eq!(event.seq, before.next());
                        assert_eq!(conversation.cursor(), event.seq);
                    }
                    Ok(ConversationDown::Unavailable(range)) => {
                        assert_eq!(range.from, before.next());
                        assert_eq!(conversation.cursor(), range.to);
                    }
                    Ok(_) => assert_eq!(conversation.cursor(), before),
                    Err(_) => {
                        assert_eq!(conversation.cursor(), before);
                        return;
                    }
                }
            }
        }
        assert!(conversation.unanswered() <= limits::UNANSWERED_POSTS);
    }
}

fn client_inbox(steps: Steps<'_>) {
    let mut inbox = client::Inbox::new();
    let mut closed = false;
    for step in steps {
        let Step::Frame(frame) = step else { continue };
        let Ok(message) = InboxDown::decode(frame) else { return };
        let Some(message) = message else { continue };
        match inbox.on_frame(message) {
            Ok(message) => {
                assert!(!closed);
                closed = matches!(message, InboxDown::Closed(_));
            }
            Err(_) => return,
        }
    }
}

fn client_fetch(steps: Steps<'_>) {
    let mut fetch = client::Fetch::new();
    let mut last = Seq(0);
    for step in steps {
        match step {
            Step::Own(number) => {
                let _ = fetch.sent(&message::Fetch {
                    conversation: ConversationId([0; 16]),
                    anchor: Anchor::Head,
                    at: 0,
                    backward: true,
                    limit: number as u32 + 1,
                    seen: Seq(0),
                });
            }
            Step::Frame(frame) => {
                let Ok(message) = FetchDown::decode(frame) else { return };
                let Some(message) = message else { continue };
                match fetch.on_frame(message) {
                    Ok(FetchDown::Event(event)) => {
                        assert!(event.seq > last);
                        last = event.seq;
                    }
                    Ok(FetchDown::Unavailable(range)) => {
                        assert!(range.from > last);
                        last = range.to;
                    }
                    Ok(FetchDown::Page(page)) => {
                        assert_eq!(page.last, last);
                        last = Seq(0);
                    }
                    Ok(FetchDown::Closed(_)) => {}
                    Err(_) => return,
                }
            }
        }
        assert!(fetch.unanswered() <= limits::FETCHES_IN_FLIGHT);
    }
}
