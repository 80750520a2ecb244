//! Who a person is, and which conversation an event belongs to.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use common::message::Party;
use futures_util::future::join_all;
use ports::event_store::NewUpdate;
use uuid::Uuid;

use crate::harness::Harness;
use crate::samples::{by_both, by_phone, by_user_id, impersonal, message, status};
use crate::scene::{Scene, number, tenant};

const ANNA: &str = "+491700000001";
const BEN: &str = "+491700000002";

fn of(n: u32, party: Party) -> NewUpdate {
    let mut update = message(n);
    update.event.party = party;
    update
}

fn in_group(n: u32, group: &str, party: Party) -> NewUpdate {
    let mut update = of(n, party);
    update.event.group = Some(group.to_owned());
    update
}

fn at(n: u32, to: &str, party: Party) -> NewUpdate {
    let mut update = of(n, party);
    update.event.number = Some(number(to));
    update
}

/// The conversation of an update that is committed by itself.
async fn conversation<H: Harness>(scene: &Scene<H>, update: NewUpdate) -> Uuid {
    conversations(scene, vec![update]).await[0]
}

async fn conversations<H: Harness>(scene: &Scene<H>, updates: Vec<NewUpdate>) -> Vec<Uuid> {
    let events = scene.emit(updates).await;
    events.iter().map(|event| event.conversation.expect("an event of a person has a conversation")).collect()
}

pub async fn one_person_at_one_number_has_one_conversation<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = conversation(&scene, of(1, by_phone(ANNA))).await;
    assert_eq!(conversation(&scene, of(2, by_phone(ANNA))).await, first);
    let first = conversation(&scene, of(3, by_user_id("DE.1"))).await;
    assert_eq!(conversation(&scene, of(4, by_user_id("DE.1"))).await, first);
}

pub async fn different_people_have_different_conversations<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let people = [by_phone(ANNA), by_phone(BEN), by_user_id("DE.1"), by_user_id("DE.2"), by_user_id("de.1")];
    let mut all = Vec::new();
    for (n, party) in (1..).zip(people) {
        all.push(conversation(&scene, of(n, party)).await);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 5);
}

pub async fn one_person_has_a_conversation_with_each_number<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let one = conversation(&scene, at(1, "777", by_both(ANNA, "DE.1"))).await;
    let two = conversation(&scene, at(2, "778", by_both(ANNA, "DE.1"))).await;
    assert_ne!(one, two);
    assert_eq!(conversation(&scene, at(3, "777", by_both(ANNA, "DE.1"))).await, one);
    assert_eq!(conversation(&scene, at(4, "778", by_phone(ANNA))).await, two);
}

pub async fn tenants_share_no_conversation<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let own = conversation(&scene, of(1, by_both(ANNA, "DE.1"))).await;
    let other = NewUpdate { tenant: tenant("other"), ..of(2, by_both(ANNA, "DE.1")) };
    assert_ne!(conversation(&scene, other).await, own);
}

pub async fn a_status_belongs_to_the_conversation_of_its_recipient<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = conversation(&scene, message(1)).await;
    assert_eq!(conversation(&scene, status(2)).await, first);
}

pub async fn a_person_is_found_by_the_user_id_when_the_phone_number_is_withheld<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = conversation(&scene, of(1, by_both(ANNA, "DE.1"))).await;
    assert_eq!(conversation(&scene, of(2, by_user_id("DE.1"))).await, first);
    assert_eq!(conversation(&scene, of(3, by_phone(ANNA))).await, first);
}

pub async fn a_phone_number_joins_a_user_id_that_comes_later<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = conversation(&scene, of(1, by_phone(ANNA))).await;
    assert_eq!(conversation(&scene, of(2, by_both(ANNA, "DE.1"))).await, first);
    assert_eq!(conversation(&scene, of(3, by_user_id("DE.1"))).await, first);
}

pub async fn a_new_phone_number_of_a_known_user_id_is_learned<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = conversation(&scene, of(1, by_user_id("DE.1"))).await;
    assert_eq!(conversation(&scene, of(2, by_both(ANNA, "DE.1"))).await, first);
    assert_eq!(conversation(&scene, of(3, by_phone(ANNA))).await, first);
}

/// A phone number is given to somebody else: the new owner must not find the old one's conversation.
pub async fn another_user_id_is_another_person_even_with_the_same_phone_number<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let old = conversation(&scene, of(1, by_both(ANNA, "DE.1"))).await;
    let new = conversation(&scene, of(2, by_both(ANNA, "DE.2"))).await;
    assert_ne!(new, old);
    assert_eq!(conversation(&scene, of(3, by_user_id("DE.1"))).await, old);
    assert_eq!(conversation(&scene, of(4, by_user_id("DE.2"))).await, new);
}

pub async fn a_group_has_one_conversation_whoever_writes<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let direct = conversation(&scene, of(1, by_phone(ANNA))).await;
    let group = conversation(&scene, in_group(2, "g1", by_phone(ANNA))).await;
    assert_ne!(group, direct);
    assert_eq!(conversation(&scene, in_group(3, "g1", by_phone(BEN))).await, group);
    assert_ne!(conversation(&scene, in_group(4, "g2", by_phone(BEN))).await, group);
    assert_eq!(conversation(&scene, of(5, by_phone(ANNA))).await, direct);
}

pub async fn nobody_has_no_conversation<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let named_only = Party { name: Some("Anna".to_owned()), ..Party::default() };
    let events = scene.emit(vec![impersonal(1, "777"), of(2, named_only)]).await;
    assert_eq!([events[0].conversation, events[1].conversation], [None, None]);
}

pub async fn one_batch_finds_people_as_several_do<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let parties =
        [by_phone(ANNA), by_both(ANNA, "DE.1"), by_user_id("DE.1"), by_phone(BEN), by_phone(BEN), by_user_id("DE.9")];
    let updates = (1..).zip(parties).map(|(n, party)| of(n, party)).collect();
    let all = conversations(&scene, updates).await;
    assert_eq!((all[0], all[0]), (all[1], all[2]), "Anna");
    assert_eq!(all[3], all[4], "Ben");
    assert!(all[0] != all[3] && all[0] != all[5] && all[3] != all[5]);
}

pub async fn concurrent_first_messages_of_one_person_share_a_conversation<H: Harness>() {
    let scene = Scene::<H>::open().await;
    join_all((0..8).map(async |n| scene.commit_new(vec![of(n, by_both(ANNA, "DE.1"))]).await)).await;
    scene.sequence_all().await;
    let events = scene.all_events().await;
    assert_eq!(events.len(), 8);
    assert!(events.iter().all(|event| event.conversation.is_some() && event.conversation == events[0].conversation));
}

pub async fn conversations_survive_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let person = conversation(&scene, of(1, by_both(ANNA, "DE.1"))).await;
    let group = conversation(&scene, in_group(2, "g1", by_phone(ANNA))).await;
    let scene = scene.restart().await;
    assert_eq!(conversation(&scene, of(3, by_user_id("DE.1"))).await, person);
    assert_eq!(conversation(&scene, of(4, by_phone(ANNA))).await, person);
    assert_eq!(conversation(&scene, in_group(5, "g1", by_phone(BEN))).await, group);
}
