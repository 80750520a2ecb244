//! The laws of [`Access`](ports::access::Access).
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use common::Timestamp;
use common::access::{Action, Scope, Token, TokenHash};
use ports::access::{ActionFilter, Done, TokenFilter};
use uuid::Uuid;

use crate::clock::START;
use crate::harness::Harness;
use crate::scene::{Scene, tenant};

/// One test for each law of access.
#[macro_export]
macro_rules! access_contract {
    ($harness:ident) => {
        $crate::laws!($harness, access:
            a_token_is_found_by_its_hash_alone,
            a_token_comes_back_as_it_was_added,
            adding_a_token_again_changes_nothing,
            tokens_are_listed_newest_first_and_by_tenant,
            tokens_are_listed_in_pages,
            a_revoked_token_is_found_and_says_so,
            the_first_revocation_counts,
            revoking_what_is_not_there_says_so,
            the_tokens_of_a_tenant_are_revoked_together,
            tokens_survive_a_restart,
            an_action_is_there_before_it_ends,
            many_actions_are_written_at_once,
            actions_are_listed_newest_first_in_pages,
            actions_are_found_by_tenant,
        );
    };
}

fn token(n: u8, owner: Option<&str>) -> (Token, TokenHash) {
    let token = Token {
        id: Uuid::from_u128(u128::from(n)),
        name: format!("token {n} \u{1f511}"),
        scope: if owner.is_some() { Scope::TenantReader } else { Scope::Operator },
        tenant: owner.map(tenant),
        created_at: START,
        expires_at: n.is_multiple_of(2).then(|| START.plus(Duration::from_hours(1))),
        revoked_at: None,
    };
    (token, TokenHash([n; 32]))
}

fn action(n: u8, owner: Option<&str>) -> Action {
    Action {
        id: Uuid::from_u128(u128::from(n)),
        at: START.plus(Duration::from_secs(n.into())),
        token: n.is_multiple_of(2).then(|| Uuid::from_u128(9)),
        actor: "somebody".to_owned(),
        action: "DELETE /api/tenants/{id}".to_owned(),
        target: owner.map(str::to_owned),
        details: None,
        tenant: owner.map(tenant),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        status: None,
    }
}

async fn add<H: Harness>(scene: &Scene<H>, n: u8, owner: Option<&str>) -> Token {
    let (token, hash) = token(n, owner);
    scene.access().add_token(&token, hash).await.unwrap();
    token
}

async fn find<H: Harness>(scene: &Scene<H>, n: u8) -> Option<Token> {
    scene.access().find_token(TokenHash([n; 32])).await.unwrap()
}

fn later(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

pub async fn a_token_is_found_by_its_hash_alone<H: Harness>() {
    let scene = Scene::<H>::open().await;
    add(&scene, 1, None).await;
    assert!(find(&scene, 1).await.is_some());
    assert!(find(&scene, 2).await.is_none());
}

pub async fn a_token_comes_back_as_it_was_added<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for (n, owner) in [(1, None), (2, None), (3, Some("acme")), (4, Some("acme"))] {
        assert_eq!(Some(add(&scene, n, owner).await), find(&scene, n).await);
    }
}

pub async fn adding_a_token_again_changes_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = add(&scene, 1, None).await;
    scene.access().revoke_token(first.id, later(1)).await.unwrap();
    let (again, hash) = token(1, Some("acme"));
    scene.access().add_token(&again, hash).await.unwrap();
    assert_eq!(find(&scene, 1).await, Some(Token { revoked_at: Some(later(1)), ..first }));
}

pub async fn tokens_are_listed_newest_first_and_by_tenant<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (one, two, three) =
        (add(&scene, 1, Some("acme")).await, add(&scene, 2, None).await, add(&scene, 3, Some("globex")).await);
    let of = async |owner: Option<&str>| {
        let filter = TokenFilter { tenant: owner.map(tenant), before: None, limit: 100 };
        scene.access().tokens(&filter).await.unwrap()
    };
    assert_eq!(of(None).await, [three.clone(), two, one.clone()]);
    assert_eq!(of(Some("acme")).await, [one]);
    assert_eq!(of(Some("globex")).await, [three]);
    assert_eq!(of(Some("nobody")).await, []);
}

pub async fn tokens_are_listed_in_pages<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for n in [2, 7, 1, 6, 5, 3, 4] {
        add(&scene, n, (n != 4).then_some("acme")).await;
    }
    for (owner, expected) in [(None, &[7, 6, 5, 4, 3, 2, 1][..]), (Some("acme"), &[7, 6, 5, 3, 2, 1])] {
        let mut filter = TokenFilter { tenant: owner.map(tenant), before: None, limit: 2 };
        let mut seen = Vec::new();
        loop {
            let page = scene.access().tokens(&filter).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 2);
            filter.before = Some(last.id);
            seen.extend(page.iter().map(|each| each.id.as_u128()));
        }
        assert_eq!(seen, expected);
    }
}

pub async fn a_revoked_token_is_found_and_says_so<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let token = add(&scene, 1, None).await;
    assert!(scene.access().revoke_token(token.id, later(5)).await.unwrap());
    assert_eq!(find(&scene, 1).await.unwrap().revoked_at, Some(later(5)));
}

pub async fn the_first_revocation_counts<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let token = add(&scene, 1, Some("acme")).await;
    assert!(scene.access().revoke_token(token.id, later(5)).await.unwrap());
    assert!(scene.access().revoke_token(token.id, later(6)).await.unwrap());
    assert_eq!(scene.access().revoke_tokens_of(&tenant("acme"), later(7)).await.unwrap(), 0);
    assert_eq!(find(&scene, 1).await.unwrap().revoked_at, Some(later(5)));
}

pub async fn revoking_what_is_not_there_says_so<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert!(!scene.access().revoke_token(Uuid::from_u128(1), START).await.unwrap());
    assert_eq!(scene.access().revoke_tokens_of(&tenant("acme"), START).await.unwrap(), 0);
}

pub async fn the_tokens_of_a_tenant_are_revoked_together<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for (n, owner) in [(1, Some("acme")), (2, Some("acme")), (3, Some("globex")), (4, None)] {
        add(&scene, n, owner).await;
    }
    assert_eq!(scene.access().revoke_tokens_of(&tenant("acme"), later(1)).await.unwrap(), 2);
    for (n, revoked) in [(1, true), (2, true), (3, false), (4, false)] {
        assert_eq!(find(&scene, n).await.unwrap().revoked_at.is_some(), revoked, "{n}");
    }
}

pub async fn tokens_survive_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let token = add(&scene, 1, Some("acme")).await;
    scene.access().revoke_token(token.id, later(1)).await.unwrap();
    let scene = scene.restart().await;
    assert_eq!(find(&scene, 1).await, Some(Token { revoked_at: Some(later(1)), ..token }));
}

async fn listed<H: Harness>(scene: &Scene<H>, filter: ActionFilter) -> Vec<Action> {
    scene.access().actions(&filter).await.unwrap()
}

fn all() -> ActionFilter {
    ActionFilter { limit: 100, ..ActionFilter::default() }
}

pub async fn an_action_is_there_before_it_ends<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (one, two) = (action(1, Some("acme")), action(2, None));
    for each in [&one, &two, &one] {
        scene.access().begin_actions(std::slice::from_ref(each)).await.unwrap();
    }
    assert_eq!(listed(&scene, all()).await, [two.clone(), one.clone()]);
    let text = |text: &str| Some(text.to_owned());
    let done = Done { target: text("made"), details: text("paused"), tenant: Some(tenant("globex")) };
    for (id, status) in [(one.id, 204), (two.id, 201)] {
        scene.access().finish_action(id, status, &done).await.unwrap();
    }
    scene.access().begin_actions(std::slice::from_ref(&one)).await.unwrap();
    let scene = scene.restart().await;
    let one = Action { details: done.details.clone(), ..one };
    let two = Action { status: Some(201), target: done.target, details: done.details, tenant: done.tenant, ..two };
    assert_eq!(listed(&scene, all()).await, [two, Action { status: Some(204), ..one }]);
}

/// More than fit into one statement; some of them are there already, or come twice.
pub async fn many_actions_are_written_at_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.access().begin_actions(&[]).await.unwrap();
    let numbered = |n: u128| {
        let (id, target) = (Uuid::from_u128(n), n.is_multiple_of(3).then(|| format!("target {n}")));
        let status = n.is_multiple_of(5).then_some(403);
        Action { id, target, status, details: Some(n.to_string()), ..action(1, n.is_multiple_of(2).then_some("acme")) }
    };
    let known = Action { details: Some("known".to_owned()), ..numbered(7) };
    scene.access().begin_actions(std::slice::from_ref(&known)).await.unwrap();
    let mut many: Vec<Action> = (1..=1000).map(numbered).collect();
    many.push(Action { details: Some("again".to_owned()), ..numbered(8) });
    scene.access().begin_actions(&many).await.unwrap();
    let mut expected: Vec<Action> = many[..1000].iter().rev().cloned().collect();
    expected[1000 - 7] = known;
    assert_eq!(listed(&scene, ActionFilter { limit: 2000, ..all() }).await, expected);
}

pub async fn actions_are_listed_newest_first_in_pages<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for n in [2, 5, 1, 4, 3] {
        scene.access().begin_actions(&[action(n, None)]).await.unwrap();
    }
    let mut before = None;
    let mut seen = Vec::new();
    loop {
        let page = listed(&scene, ActionFilter { before, limit: 2, tenant: None }).await;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        before = Some(last.id);
        seen.extend(page.iter().map(|each| each.id.as_u128()));
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
}

pub async fn actions_are_found_by_tenant<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for (n, owner) in [(1, Some("acme")), (2, Some("globex")), (3, None), (4, Some("acme"))] {
        scene.access().begin_actions(&[action(n, owner)]).await.unwrap();
    }
    let of = async |owner: &str| {
        let found = listed(&scene, ActionFilter { tenant: Some(tenant(owner)), ..all() }).await;
        found.iter().map(|each| each.id.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(of("acme").await, [4, 1]);
    assert_eq!(of("globex").await, [2]);
    assert_eq!(of("nobody").await, [0; 0]);
}
