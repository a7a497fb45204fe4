//! Several values for one series at one time.

use super::*;

#[tokio::test]
async fn the_first_value_at_a_time_is_kept() {
    desk!(_dir, desk, "");
    let first = message(TOPIC, r#"{"ts":1700000000000,"v":1}"#);
    let other = message(TOPIC, r#"{"ts":1700000000000,"v":2,"w":3}"#);
    let verdicts = desk.send(vec![first, other]).await;
    assert_eq!(
        verdicts,
        [Verdict::Committed, Verdict::Rejected("conflict")]
    );
    // What could be taken of the second one is stored.
    assert_eq!(desk.stored(), ["v/d1 0=1", "w/d1 0=3"]);
    assert_eq!(desk.dead()[0].reason, "conflict");
    assert_eq!(desk.results(), [1, 1, 0, 0]);
    desk.close().await;
}

#[tokio::test]
async fn values_of_one_millisecond_all_stay_and_redelivery_adds_none() {
    desk!(dir, desk, "");
    let sent: Vec<Message> = (0..5)
        .map(|n| message(TOPIC, &format!("{{\"v\":{n},\"w\":7}}")))
        .collect();
    assert_eq!(desk.send(sent.clone()).await, [Verdict::Committed; 5]);
    let want = ["v/d1 0=0 1=1 2=2 3=3 4=4", "w/d1 0=7"];
    assert_eq!(desk.stored(), want);
    assert_eq!(desk.send(sent.clone()).await, [Verdict::Committed; 5]);
    assert_eq!(desk.stored(), want);
    desk.close().await;
    // After a restart nothing is remembered; the store's answers lead the way.
    let desk = Desk::open(dir.path(), "");
    for message in sent.iter().rev() {
        assert_eq!(desk.send(vec![message.clone()]).await, [Verdict::Committed]);
    }
    assert_eq!(desk.stored(), want);
    assert_eq!(desk.results(), [0, 0, 5, 0]);
    let late = message(TOPIC, "{\"v\":9}");
    assert_eq!(desk.send(vec![late]).await, [Verdict::Committed]);
    assert_eq!(desk.stored()[0], "v/d1 0=0 1=1 2=2 3=3 4=4 5=9");
    assert!(desk.dead().is_empty());
    desk.close().await;
}

#[tokio::test]
async fn two_fields_of_one_series_in_one_message_are_a_conflict_with_and_without_a_time() {
    for time in ["", "\"ts\":1700000000000,"] {
        desk!(dir, desk, "");
        let both = |a: u32, b: u32| message(TOPIC, &format!("{{{time}\"a.b\":{a},\"a_b\":{b}}}"));
        let conflict = Verdict::Rejected("conflict");
        assert_eq!(desk.send(vec![both(1, 2)]).await, [conflict], "{time}");
        assert_eq!(desk.stored(), ["a_b/d1 0=1"], "the first stays: {time}");
        let dead = desk.dead();
        assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "conflict"));
        assert_eq!(
            (desk.rejected("conflict"), desk.results()),
            (1, [0, 1, 0, 0])
        );
        // Redelivery ends as before, and adds nothing.
        assert_eq!(desk.send(vec![both(1, 2)]).await, [conflict]);
        assert_eq!(desk.stored(), ["a_b/d1 0=1"]);
        // The same value twice is no conflict.
        assert_eq!(desk.send(vec![both(1, 1)]).await, [Verdict::Committed]);
        desk.close().await;
        // Nor does a restart part them.
        let desk = Desk::open(dir.path(), "");
        assert_eq!(desk.send(vec![both(1, 2)]).await, [conflict]);
        assert_eq!(desk.stored(), ["a_b/d1 0=1"]);
        desk.close().await;
    }
}

#[tokio::test]
async fn the_first_of_two_moves_on_without_the_second() {
    desk!(_dir, desk, "");
    let of = |fields: &str| message(TOPIC, &format!("{{{fields}}}"));
    let mut sent = vec![of("\"a_b\":9"), of("\"a.b\":1,\"a_b\":2,\"c\":3")];
    let conflict = Verdict::Rejected("conflict");
    let want = ["a_b/d1 0=9 1=1", "c/d1 0=3"];
    assert_eq!(
        desk.send(sent.clone()).await,
        [Verdict::Committed, conflict]
    );
    assert_eq!(desk.stored(), want);
    sent.reverse();
    assert_eq!(desk.send(sent).await, [conflict, Verdict::Committed]);
    assert_eq!(desk.stored(), want);
    // Many fields are looked up another way.
    let many: Vec<String> = (0..40)
        .map(|n| format!("\"x{n}\":{n},\"x.{n}\":7"))
        .collect();
    let other = Message {
        topic: "tenants/acme/devices/d2/telemetry".to_owned(),
        ..of(&format!("{},\"y.1\":1,\"y_1\":2", many.join(",")))
    };
    assert_eq!(desk.send(vec![other]).await, [conflict]);
    let y = "y_1/d2 0=1".to_owned();
    assert!(desk.stored().contains(&y), "{:?}", desk.stored());
    desk.close().await;
}

#[tokio::test]
async fn one_field_twice_in_a_message_is_a_conflict_and_the_rest_is_stored() {
    for time in ["", "\"ts\":1700000000000,"] {
        desk!(_dir, desk, "");
        let payload = format!("{{{time}\"v\":1,\"w\":5,\"v\":2}}");
        let conflict = Verdict::Rejected("conflict");
        assert_eq!(desk.send_one(TOPIC, &payload).await, conflict, "{time}");
        assert_eq!(desk.stored(), ["v/d1 0=1", "w/d1 0=5"], "{time}");
        assert_eq!(desk.dead().len(), 1);
        // The same value twice is no conflict.
        let same = payload.replace(":2}", ":1}").replace("000,", "001,");
        assert_eq!(desk.send_one(TOPIC, &same).await, Verdict::Committed);
        desk.close().await;
    }
}
