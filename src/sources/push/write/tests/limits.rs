//! The bounds of `[limits]`, as remote_write and text meet them, and names that
//! may not come in.

use super::*;

impl Desk {
    /// Writes one sample for each of these series, given as `name a=b c=d`, in one
    /// request of this protocol.
    async fn push(&self, protocol: Protocol, path: &str, series: &[&str]) -> (u16, String) {
        match protocol {
            Protocol::RemoteWrite => {
                let rows: &[(i64, f64)] = &[(NOW, 1.0)];
                let named = series.iter().map(|of| format!("__name__={of}"));
                let named: Vec<String> = named.collect();
                let told: Vec<Told<'_>> = named.iter().map(|of| (&**of, rows)).collect();
                let path = format!("/api/v1/write{path}");
                self.post(&path, &[], block(&message(&told))).await
            }
            Protocol::Text => {
                let text = series.iter().map(|of| text_of(of)).collect::<String>();
                let path = format!("/api/v1/import/prometheus{path}");
                self.post(&path, &[], text.into()).await
            }
        }
    }

    fn rejected_of(&self, protocol: Protocol, reason: PushReason) -> u64 {
        self.metrics.push.of(protocol).rejected(reason).get()
    }
}

fn text_of(series: &str) -> String {
    let mut words = series.split(' ');
    let name = words.next().unwrap();
    let labels = words.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        format!("\"{name}\"=\"{value}\"")
    });
    let labels: Vec<String> = labels.collect();
    format!("{name}{{{}}} 1 {NOW}\n", labels.join(","))
}

/// Checks what one request comes to on both ways in.
async fn check(config: &str, series: &[&str], want: (u16, String), stored: &[&str]) {
    for protocol in [Protocol::RemoteWrite, Protocol::Text] {
        let desk = desk(config, None);
        let answer = desk.push(protocol, "", series).await;
        assert_eq!(answer, want, "{protocol:?}: {config}");
        assert_eq!(desk.stored(), stored, "{protocol:?}: {config}");
    }
}

#[tokio::test]
async fn series_and_labels_are_bounded() {
    let abc = ["a x=1", "b x=1", "c x=1"];
    let two = ["a{x=\"1\"}: 0=1", "b{x=\"1\"}: 0=1"];
    for limit in ["series_max", "series_per_tenant_max"] {
        let config = format!("[limits]\n{limit} = 2\n");
        check(&config, &abc, refused("1 series_limit"), &two).await;
    }
    for limit in ["new_series_per_hour", "new_series_per_tenant_per_hour"] {
        let config = format!("[limits]\n{limit} = 2\n");
        check(&config, &abc, refused("1 series_limit"), &two).await;
    }
    let bounds = [
        ("labels_max = 3", "c x=1 y=1 z=1"),
        ("label_name_bytes_max = 8", "c long_name=1"),
        ("label_value_bytes_max = 4", "c x=12345"),
    ];
    for (limit, over) in bounds {
        let config = format!("[limits]\n{limit}\n");
        let series = [abc[0], abc[1], over];
        check(&config, &series, refused("1 labels"), &two).await;
    }
}

#[tokio::test]
async fn values_of_a_label_overflow() {
    let config = "[limits]\nlabel_values_max = 2\n";
    let want = [
        "a{x=\"1\"}: 0=1",
        "a{x=\"2\"}: 0=1",
        "a{x=\"__overflow__\"}: 0=1",
    ];
    check(config, &["a x=1", "a x=2", "a x=3", "a x=4"], ok(), &want).await;
}

#[tokio::test]
async fn samples_above_the_rate_of_a_tenant_or_of_all_are_for_later() {
    let config = "[limits]\nsamples_per_second = 1\nsamples_per_second_all = 3\n\
        [[tenant]]\nid = \"fast\"\nsamples_per_second = 0\n";
    for protocol in [Protocol::RemoteWrite, Protocol::Text] {
        let desk = desk(config, None);
        let ten: Vec<String> = (0..10).map(|n| format!("m{n}")).collect();
        let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
        let of_tenant = "the tenant sends more samples per second than it may\n";
        let of_all = "all tenants together send more samples per second than they may\n";
        assert_eq!(desk.push(protocol, "/a", &ten).await, ok());
        let over = desk.push(protocol, "/a", &["m0", "m1"]).await;
        assert_eq!(over, (429, of_tenant.to_owned()));
        assert_eq!(desk.push(protocol, "/fast", &ten).await, ok());
        assert_eq!(desk.push(protocol, "", &ten).await, ok());
        let over = desk.push(protocol, "/fast", &["m0"]).await;
        assert_eq!(over, (429, of_all.to_owned()));
        assert_eq!(desk.rejected_of(protocol, PushReason::Quota), 3);
        assert_eq!(desk.stored().len(), 30, "nothing of what came too soon");
        desk.clock.advance(Duration::from_secs(2));
        assert_eq!(desk.push(protocol, "/a", &["n0", "n1"]).await, ok());
        assert_eq!(desk.stored().len(), 32);
    }
}

#[tokio::test]
async fn names_with_underscores_come_in_but_not_those_of_native_histograms() {
    let series = ["a __x=1", "b __native_part__=s", "c __native_metric__=m"];
    let want = ["a{__x=\"1\"}: 0=1"];
    check("", &series, refused("2 labels"), &want).await;
    let own = ["__native_histogram__ x=1", "d"];
    check("", &own, refused("1 labels"), &["d: 0=1"]).await;
}

#[tokio::test]
async fn a_tenant_has_a_tenants_name() {
    let long = format!("c tenant_id={}", "x".repeat(129));
    let series = ["a tenant_id=a/b", "b tenant_id=b", &long];
    let want = ["b{tenant_id=\"b\"}: 0=1"];
    check("", &series, refused("2 tenant"), &want).await;
    let desk = desk("", None);
    for name in ["__overflow__", "a/b", "a b", "", "\u{e9}"] {
        let header = [("x-scope-orgid", name)];
        let body = block(&message(&[("__name__=a", &[(NOW, 1.0)])]));
        let (status, text) = desk.post("/api/v1/write", &header, body).await;
        assert_eq!(status, 400, "{name}");
        assert!(text.starts_with("not a tenant's name, expected"), "{text}");
    }
    let path = desk.push(Protocol::Text, "/__x", &["a"]).await;
    assert_eq!(path.0, 400);
    assert!(desk.stored().is_empty());
}
