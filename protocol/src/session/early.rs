//! What may take effect before a connection's handshake is complete (D5).
//!
//! Data that came as QUIC 0-RTT may be a copy somebody sent again. Two kinds of it do no harm however often they come: a
//! post, which its number makes the same post, and a read. Everything else waits until the handshake is complete, as only
//! who has the keys gets that far. It waits, it is not refused: a client need not know when its handshake is over.

use crate::frame::RawFrame;
use crate::registry::FrameType;

/// Whether a frame of this type may take effect before the handshake is complete.
///
/// `Hello` says who reads and posts, and nothing more: that a session is there (the older one of the device replaced,
/// presence, an inbox that is kept up to date) comes with the end of the handshake. Requests are not looked into: those
/// that read wait with those that change something. What is not named here waits, whatever it will turn out to be.
pub fn acts_early(frame_type: FrameType) -> bool {
    matches!(frame_type, FrameType::Hello | FrameType::Open | FrameType::Post | FrameType::Fetch)
}

/// Lets the frames of one stream through in their order, up to the first that has to wait for the handshake.
///
/// It holds one frame at most: while [`EarlyGate::is_holding`], the stream is not to be read on, and what follows stays
/// in the transport, bounded by its flow control.
#[derive(Debug, Clone, Default)]
pub struct EarlyGate {
    complete: bool,
    held: Option<RawFrame>,
}

impl EarlyGate {
    /// Before the handshake is complete.
    pub fn early() -> Self {
        Self::default()
    }

    /// The handshake is complete: everything passes.
    pub fn open() -> Self {
        Self { complete: true, held: None }
    }

    /// A frame has come. It is to be acted on if it comes back, and otherwise held. Nothing may come while one is held:
    /// that frame would be lost.
    pub fn pass(&mut self, frame: RawFrame) -> Option<RawFrame> {
        debug_assert!(!self.is_holding(), "a stream is not read on while a frame of it is held");
        if self.complete || acts_early(frame.frame_type) {
            return Some(frame);
        }
        self.held = Some(frame);
        None
    }

    /// Whether a frame is held.
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Whether everything passes.
    pub fn is_open(&self) -> bool {
        self.complete
    }

    /// The handshake is complete. The frame that was held, which is to be acted on before any other.
    pub fn complete(&mut self) -> Option<RawFrame> {
        self.complete = true;
        self.held.take()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Request;
    use crate::registry::Method;

    /// Types a client may send, others, and some that nobody knows.
    fn every_type() -> impl Iterator<Item = FrameType> {
        (0..=1_000).map(FrameType).chain([FrameType(u32::MAX)])
    }

    fn frame(frame_type: FrameType, body: &'static [u8]) -> RawFrame {
        RawFrame { frame_type, body: Bytes::from_static(body) }
    }

    #[test]
    fn rove_3_7_4_only_posts_and_reads_act_before_the_handshake_is_complete() {
        let early: Vec<FrameType> = every_type().filter(|frame_type| acts_early(*frame_type)).collect();
        assert_eq!(early, [FrameType::Hello, FrameType::Open, FrameType::Post, FrameType::Fetch]);
        assert!(FrameType::ALL.iter().all(|(value, ..)| every_type().any(|known| known == *value)), "all were tried");
    }

    #[test]
    fn a_request_waits_whatever_its_method() {
        for (method, ..) in Method::ALL {
            let request = Request { id: crate::ids::RequestId(1), method: *method, body: Bytes::new() };
            let mut gate = EarlyGate::early();
            assert_eq!(gate.pass(raw(&request)), None, "{method}");
            assert_eq!(gate.complete(), Some(raw(&request)));
        }
    }

    fn raw(message: &impl crate::message::Message) -> RawFrame {
        let mut decoder = crate::frame::FrameDecoder::new(crate::limits::FRAME);
        decoder.feed(&Bytes::from(message.to_frame()));
        decoder.next_frame().unwrap().unwrap()
    }

    /// Plays frames against a gate as a shell does, with the handshake complete after `complete_after` of them have
    /// come; what acted before that, and everything that acted.
    fn play(frames: &[RawFrame], complete_after: usize) -> (Vec<RawFrame>, Vec<RawFrame>) {
        let mut gate = EarlyGate::early();
        let mut acted = Vec::new();
        let mut unread = frames.iter().cloned();
        for _ in 0..complete_after {
            if gate.is_holding() {
                break;
            }
            acted.extend(unread.next().and_then(|frame| gate.pass(frame)));
        }
        let early = acted.clone();
        acted.extend(gate.complete());
        for frame in unread {
            assert!(!gate.is_holding());
            acted.extend(gate.pass(frame));
        }
        (early, acted)
    }

    #[test]
    fn whatever_comes_and_whenever_the_handshake_ends_every_frame_acts_once_in_order_and_none_too_early() {
        let kinds = [
            frame(FrameType::Open, b"o"),
            frame(FrameType::Post, b"p"),
            frame(FrameType::Mark, b"m"),
            frame(FrameType::Request, b"r"),
            frame(FrameType::Suspend, b"s"),
            frame(FrameType(62), b"grease"),
        ];
        let mut sequences: Vec<Vec<RawFrame>> = vec![Vec::new()];
        for _ in 0..5 {
            let longer = |sequence: &Vec<RawFrame>| {
                kinds.iter().map(|kind| [sequence.as_slice(), std::slice::from_ref(kind)].concat()).collect::<Vec<_>>()
            };
            let more: Vec<Vec<RawFrame>> = sequences.iter().flat_map(longer).collect();
            for sequence in &more {
                for complete_after in 0..=sequence.len() {
                    let (early, acted) = play(sequence, complete_after);
                    assert_eq!(&acted, sequence);
                    let harmless = sequence.iter().take_while(|frame| acts_early(frame.frame_type)).count();
                    assert_eq!(early.len(), harmless.min(complete_after), "{sequence:?} {complete_after}");
                }
            }
            sequences = more;
        }
    }
}
