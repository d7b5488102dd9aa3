//! What is sent by who means harm: other spellings of a path, parameters given twice, ids and
//! words that would be other keys, messages whose end is told in two ways.

use crate::support::api::{ADMIN, Answer, MEMBER, Site, bearer};

#[tokio::test]
async fn no_spelling_of_a_path_leads_where_the_path_itself_does_not() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    for (path, expected) in [
        ("/api/cached/organizations/1/info/", 200),
        ("/api/cached/organizations/%31/info/", 200),
        ("/api/cached/organizations/2/info/", 403),
        ("/api/cached/organizations/%32/info/", 403),
        ("http://elsewhere/api/cached/organizations/2/info/", 403),
        ("/api/cached/organizations/1/../2/info/", 404),
        ("/api/cached/organizations/1%2f..%2f2/info/", 404),
        ("/api/cached/organizations/1%252f2/info/", 404),
        ("/api/cached/organizations/%2e%2e/info/", 404),
        ("/api/cached/%2e/organizations/1/info/", 404),
        ("/api/cached/./organizations/1/info/", 404),
        ("/api/cached//organizations/1/info/", 404),
        ("//api/cached/organizations/1/info/", 404),
        ("/api/cached/organizations/1/info//", 404),
        ("/api/cached/organizations/1/info/%00", 404),
        ("/api/cached/organizations/1%00/info/", 404),
        ("/api/cached/organizations/1;x/info/", 404),
        ("/api/cached/organizations/1:30/info/", 404),
        ("/api/cached/organizations/1%0d%0aDEL/info/", 404),
        ("/api/cached/organizations/1%20or%201=1/info/", 404),
        ("/api/cached/organizations/%EF%BC%91/info/", 404),
        ("/API/cached/organizations/1/info/", 404),
        ("/api\\cached\\organizations\\1\\info\\", 404),
        ("/metrics", 404),
        ("/api/cache-management/jobs/..%2fcache-status/", 403),
    ] {
        let answer = site.get_as(MEMBER, path).await;
        assert_eq!(answer.status, expected, "{path}: {}", answer.text());
    }
    let keys = site.world.keys().await;
    let of_info: Vec<_> = keys.iter().filter(|key| key.starts_with("v1:org:data")).collect();
    assert_eq!(of_info, ["v1:org:data:1"], "one value has one key");
}

#[tokio::test]
async fn a_parameter_that_is_given_twice_is_refused_and_a_like_name_means_nothing() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let path = "/api/cached/search/deals/?q=big";
    for (more, expected) in [
        ("&organization_id=1&organization_id=2", 400),
        ("&organization_id=2&organization_id=1", 400),
        ("&organization_id=1&organization%5Fid=2", 400),
        ("&organization_id=1,2", 400),
        ("&organization_id=1%262", 400),
        ("&organization_id=", 400),
        ("&organization_id=2", 403),
        ("&q=other", 400),
        ("&organization_id[]=2", 200),
        ("&Organization_Id=2", 200),
        ("&org_id=2&user_id=2", 200),
        (";organization_id=2", 200),
    ] {
        let answer = site.get_as(MEMBER, &format!("{path}{more}")).await;
        assert_eq!(answer.status, expected, "{more}: {}", answer.text());
    }
    let keys = site.world.keys().await;
    assert!(!keys.iter().any(|key| key.starts_with("v1:api_response:search:2")), "{keys:?}");
}

/// A word is a word, whatever it would mean in a key, a pattern, a command or a statement.
#[tokio::test]
async fn no_word_is_another_key() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let words = [
        "a:b",
        "x%7Bgeneration%7D",
        "%7Borg_id%7D",
        "..:..",
        "*%3F%5B",
        "a%25b",
        "%27%3B+drop+table+deals_deal%3B--",
        "%25",
        "%5C%22%5Cu0000",
        "unstale:unstale:state",
        "big:30:overview",
    ];
    let mut taken = 0;
    for word in words {
        let path = format!("/api/cached/search/deals/?q={word}");
        let first = site.get_as(MEMBER, &path).await;
        assert!([200, 400].contains(&first.status), "{word}: {}", first.text());
        if first.status == 200 {
            taken += 1;
            let again = site.get_as(MEMBER, &path).await;
            assert_eq!(again.header("cache-status"), Some("unstale; hit"), "{word}");
            assert_eq!(first.json()["search"], again.json()["search"], "{word}");
        }
    }
    let keys = site.world.keys().await;
    let others: Vec<_> = keys
        .iter()
        .filter(|key| {
            !key.starts_with("v1:api_response:search:") && !key.starts_with("v1:identity:")
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let entries = keys.iter().filter(|key| key.matches(':').count() == 5).count();
    assert_eq!(entries, taken, "each word has a key of five colons, its own are escaped: {keys:?}");
    let deals = site.world.query_one("select count(*)::text from deals_deal").await;
    assert_eq!(deals, "1");
}

/// What is in front of the daemon might see another end of the message.
#[tokio::test]
async fn a_message_whose_end_can_be_told_in_two_ways_is_refused() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let head = format!(
        "POST /api/cache-management/warm-cache/ HTTP/1.1\r\nHost: api\r\nAuthorization: {}\r\n\
         Content-Type: application/json\r\n",
        bearer(ADMIN)
    );
    let smuggled = format!(
        "GET /api/cached/organizations/1/info/ HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\
         Authorization: {}\r\n\r\n",
        bearer(ADMIN)
    );
    for framing in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: +4",
        "Content-Length: -1",
        "Content-Length: 0x4",
        "Content-Length : 4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "X: a\r\n b\r\nContent-Length: 4",
        "X: a\0b\r\nContent-Length: 4",
        "X\r\nContent-Length: 4",
    ] {
        let request = format!("{head}{framing}\r\n\r\n0\r\n\r\n{smuggled}");
        let answer = site.raw(request.as_bytes()).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{framing}: {text}");
        assert_eq!(Answer::parse(&answer).unwrap().status, 400, "{framing}: {text}");
        assert!(!text.contains("organization\""), "{framing}: {text}");
    }
}
