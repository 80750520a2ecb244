//! The laws of [`EventStore`](ports::event_store::EventStore).
//!
//! The port writes more than the ports read: how often a duplicate was counted, parked envelopes, dead letters, statuses
//! and the places of archived envelopes cannot be seen through a port, so the laws only say that writing them repeatedly
//! works and leaves what can be seen as it was. What the rows hold is tested where they are, in the backends.

mod commit;
mod identity;
mod work;

pub use commit::*;
pub use identity::*;
pub use work::*;

/// One test for each law of the event store.
#[macro_export]
macro_rules! event_store_contract {
    ($harness:ident) => {
        $crate::laws!($harness, event_store:
            // commit
            an_update_is_new_once_and_then_a_duplicate,
            an_update_twice_in_one_batch_is_new_and_then_a_duplicate,
            a_duplicate_emits_no_second_event,
            a_duplicate_keeps_the_first_content,
            keys_are_unique_within_their_tenant_only,
            outcomes_come_in_the_order_of_the_updates,
            an_empty_batch_is_fine,
            a_redelivered_envelope_is_a_duplicate_and_emits_nothing,
            concurrent_commits_of_one_update_store_it_once,
            concurrent_commits_of_overlapping_batches_all_succeed,
            a_large_batch_is_stored_whole,
            a_message_id_of_the_longest_length_is_stored,
            a_message_id_that_is_too_long_is_refused_and_its_neighbours_are_stored,
            nothing_of_a_refused_update_is_stored,
            a_nul_in_a_text_is_stored_as_a_replacement_character,
            the_data_of_an_event_is_stored_byte_for_byte,
            committed_updates_survive_a_restart,
            // identity
            one_person_at_one_number_has_one_conversation,
            different_people_have_different_conversations,
            one_person_has_a_conversation_with_each_number,
            tenants_share_no_conversation,
            a_status_belongs_to_the_conversation_of_its_recipient,
            a_person_is_found_by_the_user_id_when_the_phone_number_is_withheld,
            a_phone_number_joins_a_user_id_that_comes_later,
            a_new_phone_number_of_a_known_user_id_is_learned,
            another_user_id_is_another_person_even_with_the_same_phone_number,
            a_group_has_one_conversation_whoever_writes,
            nobody_has_no_conversation,
            one_batch_finds_people_as_several_do,
            concurrent_first_messages_of_one_person_share_a_conversation,
            conversations_survive_a_restart,
            // work
            attempts_count_up_for_each_envelope,
            an_attempt_taken_back_does_not_count,
            taking_back_what_never_began_is_fine,
            finished_envelopes_begin_at_one_again,
            attempts_survive_a_restart,
            parked_envelopes_are_idempotent,
            dead_letters_are_idempotent,
            archived_envelopes_are_idempotent,
            raw_bytes_wait_oldest_first,
            raw_bytes_are_gone_once_archived,
            raw_bytes_of_one_envelope_wait_once,
            raw_bytes_survive_a_restart,
            everything_in_one_batch_is_written,
        );
    };
}
