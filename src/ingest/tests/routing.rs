//! What a message causes once, however often its rows are tried.

use super::*;

/// Sends messages of one stamp and says how many were taken as a whole, and how many
/// outbox rows all made.
async fn send_counted(desk: &Desk, messages: Vec<Message>) -> (usize, usize) {
    let before = desk.outbox().len();
    let endings = desk.ingest.submit_counted(&origin(), messages).await;
    let endings = endings.unwrap().await.unwrap();
    let is_accepted = |ended: &&Ended| ended.ending == Ending::Accepted;
    let accepted = endings.iter().filter(is_accepted).count();
    (accepted, desk.outbox().len() - before)
}

const ROUTE_ALL: &str = "[[destination.webhook]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/\"\n\
    [[route]]\nname = \"all\"\ndestination = \"hook\"\n";

#[tokio::test]
async fn a_message_whose_rows_move_in_turn_is_routed_once() {
    for (stored, sent, want) in [
        // One row is new at once, another one after it has moved.
        ("{\"v\":1}", "{\"v\":2,\"w\":7}", 1),
        ("{\"v\":1}", "{\"w\":7,\"v\":2}", 1),
        // One row is a duplicate, another one is new after it has moved.
        ("{\"v\":1,\"w\":7}", "{\"w\":7,\"v\":2}", 1),
        ("{\"v\":1,\"w\":7}", "{\"v\":2,\"w\":7}", 1),
    ] {
        desk!(dir, desk, ROUTE_ALL);
        assert_eq!(
            send_counted(&desk, vec![message(TOPIC, stored)]).await,
            (1, 1)
        );
        desk.close().await;
        // After a restart only the writer knows which places are taken.
        let desk = Desk::open(dir.path(), ROUTE_ALL);
        let sent_once = send_counted(&desk, vec![message(TOPIC, sent)]).await;
        assert_eq!(sent_once, (want, want), "{sent} after {stored}");
        let again = send_counted(&desk, vec![message(TOPIC, sent)]).await;
        assert_eq!(again, (0, 0), "{sent} again after {stored}");
        assert!(desk.dead().is_empty());
        desk.close().await;
    }
}

#[tokio::test]
async fn a_message_that_is_refused_in_part_is_routed_for_what_it_added() {
    let both = "{\"a_b\":2,\"a\":{\"b\":3}}";
    for stored in [None, Some("{\"a_b\":1}")] {
        desk!(dir, desk, ROUTE_ALL);
        if let Some(stored) = stored {
            send_counted(&desk, vec![message(TOPIC, stored)]).await;
        }
        desk.close().await;
        let desk = Desk::open(dir.path(), ROUTE_ALL);
        let once = send_counted(&desk, vec![message(TOPIC, both)]).await;
        assert_eq!(once, (0, 1), "after {stored:?}");
        let again = send_counted(&desk, vec![message(TOPIC, both)]).await;
        assert_eq!(again, (0, 0), "after {stored:?}");
        assert!(desk.dead().iter().all(|letter| letter.reason == "conflict"));
        desk.close().await;
    }
}

/// A message of a few fields, some of which name the same series.
fn any_payload() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    const FIELDS: [&str; 4] = ["\"v\":#", "\"w\":#", "\"a_b\":#", "\"a\":{\"b\":#}"];
    let field = proptest::option::of(0u8..4);
    let fields = (proptest::array::uniform4(field), any::<bool>());
    fields.prop_filter_map("no field", |(values, reverse)| {
        let of = |(form, value): (&str, Option<u8>)| Some(form.replace('#', &value?.to_string()));
        let mut fields: Vec<String> = FIELDS.into_iter().zip(values).filter_map(of).collect();
        if reverse {
            fields.reverse();
        }
        (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(",")))
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn a_message_is_routed_once_if_it_added_a_row_and_else_never(
        hands in proptest::collection::vec(
            (proptest::collection::vec(any_payload(), 1..4), proptest::bool::ANY),
            1..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut desk = Desk::open(dir.path(), ROUTE_ALL);
            // Dead letters of former processes.
            let mut buried = 0;
            for (payloads, restart) in hands {
                if restart {
                    buried = desk.dead().len();
                    desk.close().await;
                    desk = Desk::open(dir.path(), ROUTE_ALL);
                }
                let messages = payloads.iter().map(|p| message(TOPIC, p)).collect();
                let before = desk.stored().iter().map(|s| s.matches('=').count()).sum::<usize>();
                let (accepted, routed) = send_counted(&desk, messages).await;
                let after = desk.stored().iter().map(|s| s.matches('=').count()).sum::<usize>();
                // A message with two values for one series is refused in part.
                let refused = usize::try_from(desk.rejected("conflict")).unwrap();
                assert!((accepted..=accepted + refused).contains(&routed));
                assert_eq!(routed > 0, after > before);
                assert_eq!(desk.dead().len(), buried + refused);
                if desk.dead().is_empty() {
                    assert_eq!(accepted, routed);
                }
            }
            desk.close().await;
        });
    }
}
