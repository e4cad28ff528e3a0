//! Which conversations have a stream of their own: at most as many as the server allows, those with unsent posts first,
//! then those the app has open, then the most recently used.

use std::collections::BTreeMap;

use rove_protocol::ids::ConversationId;

#[derive(Debug, Clone, Copy, Default)]
struct Want {
    handles: u32,
    unsent: bool,
    used: u64,
}

/// Who wants a stream.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    wants: BTreeMap<ConversationId, Want>,
    clock: u64,
}

impl Streams {
    /// The app opened the conversation (once more).
    pub fn opened(&mut self, id: ConversationId) {
        self.clock += 1;
        let want = self.wants.entry(id).or_default();
        want.handles += 1;
        want.used = self.clock;
    }

    /// The app has let go of it (once).
    pub fn dropped(&mut self, id: ConversationId) {
        if let Some(want) = self.wants.get_mut(&id) {
            want.handles = want.handles.saturating_sub(1);
            self.forget_unwanted(id);
        }
    }

    /// The app did something with it.
    pub fn used(&mut self, id: ConversationId) {
        self.clock += 1;
        if let Some(want) = self.wants.get_mut(&id) {
            want.used = self.clock;
        }
    }

    /// Whether it has unsent posts.
    pub fn set_unsent(&mut self, id: ConversationId, unsent: bool) {
        if unsent {
            self.wants.entry(id).or_default().unsent = true;
        } else if let Some(want) = self.wants.get_mut(&id) {
            want.unsent = false;
            self.forget_unwanted(id);
        }
    }

    fn forget_unwanted(&mut self, id: ConversationId) {
        if self.wants.get(&id).is_some_and(|want| want.handles == 0 && !want.unsent) {
            self.wants.remove(&id);
        }
    }

    /// The conversations that are to have a stream, at most `limit`.
    pub fn selection(&self, limit: usize) -> Vec<ConversationId> {
        let mut wanted: Vec<_> = self.wants.iter().collect();
        wanted.sort_by_key(|(_, want)| std::cmp::Reverse((want.unsent, want.used)));
        wanted.into_iter().take(limit).map(|(id, _)| *id).collect()
    }

    /// Whether it is to have a stream, when there may be `limit`.
    pub fn is_selected(&self, id: ConversationId, limit: usize) -> bool {
        self.wants.contains_key(&id) && (self.wants.len() <= limit || self.selection(limit).contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ConversationId {
        ConversationId([number; 16])
    }

    #[test]
    fn of_forty_open_conversations_the_32_last_used_have_streams() {
        let mut streams = Streams::default();
        for number in 0..40 {
            streams.opened(id(number));
        }
        streams.used(id(0));
        let selection = streams.selection(32);
        assert_eq!(selection.len(), 32);
        assert!(selection.contains(&id(0)) && selection.contains(&id(39)));
        assert!(!selection.contains(&id(8)) && streams.is_selected(id(9), 32));
    }

    #[test]
    fn unsent_posts_come_before_what_is_only_looked_at() {
        let mut streams = Streams::default();
        streams.set_unsent(id(99), true);
        for number in 0..40 {
            streams.opened(id(number));
        }
        assert!(streams.is_selected(id(99), 32));
        streams.set_unsent(id(99), false);
        assert!(!streams.is_selected(id(99), 32));
    }

    #[test]
    fn a_stream_is_wanted_until_the_last_handle_is_gone() {
        let mut streams = Streams::default();
        streams.opened(id(1));
        streams.opened(id(1));
        streams.dropped(id(1));
        assert_eq!(streams.selection(32), [id(1)]);
        streams.dropped(id(1));
        assert_eq!(streams.selection(32), []);
    }
}
