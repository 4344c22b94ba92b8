//! Many callers with the same questions and other documents: nobody gets a row of another, whichever cache answers.

use std::collections::HashSet;

use axum::http::{Request, header};
use doc_server::{cache::shared, query::Cursor};
use futures::future::join_all;
use serde_json::Value;

use super::sources;
use crate::harness::{PATIENCE, Reply, TestApp, eventually, fixtures::GUIDE, redis::Redis};

/// One of those who ask.
struct Tenant {
    source: String,
    key: String,
}

/// Servers of one database and one Redis, and `count` tenants with a source each.
async fn many(count: usize, redis: &Redis) -> (TestApp, TestApp, Vec<Tenant>) {
    let timeout = std::time::Duration::from_secs(1);
    let config = shared::Config { urls: redis.url(), connections: 3, timeout, ..shared::Config::default() };
    let start = || {
        // A hundred questions at once wait for connections here, where others would be told to come back.
        let patient = |pool: &mut doc_server::index::pool::Config| pool.acquire_timeout = PATIENCE;
        let roomy = |search: &mut doc_server::search::Config| search.shed.least = search.shed.most;
        let builder = TestApp::builder().closed(&[]).with_background_tasks().with_pool(patient).with_search(roomy);
        builder.with_redis(config.clone())
    };
    let app = start().start().await;
    let mut tenants = Vec::new();
    for nth in 0..count {
        let source = format!("tenant-{nth:02}");
        let own = format!("# Shared pool\n\nThe common words of everybody, and secret{nth} of one.\n");
        app.ingest(&[("page.md", &own), ("more.md", "# Pool\n\nMore common words.\n")], &source, "1.0.0").await;
        let (_, key) = app.make_key(&["search"], &[&source]).await;
        tenants.push(Tenant { source, key });
    }
    let beside = start().start_beside(&app).await;
    for server in [&app, &beside] {
        eventually("redis is used", async || server.redis_is_used().await).await;
    }
    (app, beside, tenants)
}

fn question(nth: usize) -> String {
    let mode = ["hybrid", "vector", "keyword"][nth % 3];
    let source = ["", "&source=*", "&source=tenant-*"][nth / 3 % 3];
    format!("/api/search?query=common+pool+words+{nth}&match_count=20&mode={mode}{source}")
}

/// Everybody asks everything at once; each answer has rows, and none of another. Returns how the answers came about.
async fn ask_all(app: &TestApp, tenants: &[Tenant], questions: usize) -> HashSet<String> {
    let mut served = HashSet::new();
    for nth in 0..questions {
        let path = &question(nth);
        let replies = join_all(tenants.iter().flat_map(|tenant| {
            // Twice at once, so that one flight serves both.
            [app.get_as(&tenant.key, path), app.get_as(&tenant.key, path)]
        }));
        for (reply, tenant) in replies.await.iter().zip(tenants.iter().flat_map(|tenant| [tenant, tenant])) {
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            assert_eq!(sources(&reply.json()), std::slice::from_ref(&tenant.source), "{path}: {}", reply.text());
            served.insert(reply.header("x-cache").to_owned());
        }
    }
    served
}

async fn nobody_gets_a_row_of_another(tenants: usize, questions: usize) {
    let redis = Redis::start().await;
    let (app, beside, tenants) = many(tenants, &redis).await;
    let first = ask_all(&app, &tenants, questions).await;
    assert!(first.contains("miss") && first.contains("coalesced"), "{first:?}");
    let kept = ask_all(&app, &tenants, questions).await;
    // Stale, where the catalog is confirmed later than a request waits for that.
    assert!(kept.contains("hit-l1") && kept.iter().all(|how| how == "hit-l1" || how == "stale"), "{kept:?}");
    let writes: i64 = i64::try_from(tenants.len() * questions).unwrap();
    eventually("redis has every answer", async || redis.info("keyspace").await.contains("keys=")).await;
    let shared = ask_all(&beside, &tenants, questions).await;
    assert!(shared.contains("hit-l2"), "the other server takes answers from redis: {shared:?}, {writes} were made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_tenants_with_the_same_questions_get_no_row_of_another() {
    nobody_gets_a_row_of_another(50, 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 50 tenants with 200 questions each, three times, each asked twice at once"]
async fn fifty_tenants_with_two_hundred_questions_get_no_row_of_another() {
    nobody_gets_a_row_of_another(50, 200).await;
}

/// Two sources with the same text, and a key for each.
async fn two() -> (TestApp, String, String) {
    let app = TestApp::builder().closed(&[]).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.ingest(&GUIDE, "mine", "1.0.0").await;
    let (_, guide) = app.make_key(&["search"], &["guide"]).await;
    let (_, mine) = app.make_key(&["search"], &["m*"]).await;
    (app, guide, mine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_see_the_same_share_answers_and_others_do_not() {
    let (app, guide, mine) = two().await;
    let (_, also_mine) = app.make_key(&["search"], &["mine", "nothing-else"]).await;
    let ask = async |key: &str| app.get_as(key, "/api/search?query=pool").await;
    assert_eq!(ask(&mine).await.header("x-cache"), "miss");
    assert_eq!(ask(&also_mine).await.header("x-cache"), "hit-l1", "the same documents have the same answer");
    let other = ask(&guide).await;
    assert_eq!((other.header("x-cache"), sources(&other.json())), ("miss", vec!["guide".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flight_is_joined_by_those_alone_who_see_the_same() {
    let (app, guide, mine) = two().await;
    app.probe.hold();
    let ask = async |key: &str| app.get_as(key, "/api/search?query=pool+timeout").await;
    let asked = async {
        eventually("three callers wait for two flights", async || app.search.waiting() >= 3).await;
        app.probe.release();
    };
    let (first, second, other, ()) = tokio::join!(ask(&mine), ask(&mine), ask(&guide), asked);
    let served: Vec<&str> = [&first, &second, &other].map(|reply| reply.header("x-cache")).into();
    assert_eq!(served.iter().filter(|served| **served == "miss").count(), 2, "{served:?}");
    assert_eq!(served.iter().filter(|served| **served == "coalesced").count(), 1, "{served:?}");
    assert_ne!(other.header("x-cache"), "coalesced");
    assert_eq!(sources(&first.json()), ["mine"]);
    assert_eq!(sources(&second.json()), ["mine"]);
    assert_eq!(sources(&other.json()), ["guide"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_tag_nor_a_cursor_of_another_leads_to_his_documents() {
    let (app, guide, mine) = two().await;
    let answer = app.get_as(&guide, "/api/search?query=pool&match_count=1").await;
    let request = Request::get("/api/search?query=pool&match_count=1").header("x-api-key", &mine);
    let request = request.header(header::IF_NONE_MATCH, answer.header("etag"));
    let reply = app.send(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!((reply.status.as_u16(), sources(&reply.json())), (200, vec!["mine".to_owned()]));

    let go_on = async |key: &str, cursor: &str| -> Reply {
        app.get_as(key, &format!("/api/search?query=pool&match_count=1&cursor={cursor}")).await
    };
    let cursor = answer.json()["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(sources(&go_on(&guide, &cursor).await.json()), ["guide"]);
    let stolen = go_on(&mine, &cursor).await;
    let decoded = Cursor::decode(&cursor).unwrap();
    let forge = |generations: Vec<i64>| Cursor { generations, ..decoded.clone() }.encode();
    let unknown = go_on(&mine, &forge(vec![999_999_999])).await;
    let own = reply.json()["index"]["generations"][0].as_i64().unwrap();
    let mixed = go_on(&mine, &forge(vec![own.min(decoded.generations[0]), own.max(decoded.generations[0])])).await;
    for refused in [&stolen, &unknown, &mixed] {
        assert_eq!(refused.status, 410, "{}", refused.text());
        assert_eq!(refused.problem(), unknown.problem(), "all are told the same");
    }
    // A replaced generation is read from the database, which knows the view too.
    app.ingest(&GUIDE[..3], "guide", "1.0.0").await;
    assert_eq!(go_on(&mine, &cursor).await.status, 410);
    assert_eq!(sources(&go_on(&guide, &cursor).await.json()), ["guide"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_absent_for_one_is_there_for_another_in_the_same_second() {
    let (app, guide, mine) = two().await;
    let found: Value = app.get_as(&guide, "/api/search?query=pool&match_count=1").await.json();
    for path in [
        format!("/api/pages/{}", found["results"][0]["page_id"]),
        format!("/api/chunks/{}", found["results"][0]["chunk_id"]),
    ] {
        assert_eq!(app.get_as(&mine, &path).await.status, 404, "{path}");
        assert_eq!(app.get_as(&guide, &path).await.status, 200, "{path}");
        assert_eq!(app.get_as(&mine, &path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_mean_the_same_in_memory_and_in_the_database() {
    let app = TestApp::builder().closed(&[]).start().await;
    let names = ["a", "ab", "a_b", "a-b", "axb", "a.b", "team/a", "team/b", "Team/a", "team"];
    for name in names {
        app.ingest(&[("page.md", "# Pool\n\nWords.\n")], name, "1.0.0").await;
    }
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    let all = app.get_as(&admin, "/api/search?query=pool&match_count=100").await.json();
    let results = all["results"].as_array().unwrap();
    assert_eq!(results.len(), names.len());
    for pattern in ["a", "a*", "a_b", "*b", "team/*", "*", "a*b", "*/a", "t*m"] {
        let (_, key) = app.make_key(&["search"], &[pattern]).await;
        let listed = app.get_as(&key, "/api/sources").await.json();
        let listed: HashSet<String> = listed["sources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|source| source["source_id"].as_str().unwrap().to_owned())
            .collect();
        for result in results {
            let name = result["source_id"].as_str().unwrap();
            for path in [format!("/api/pages/{}", result["page_id"]), format!("/api/chunks/{}", result["chunk_id"])] {
                let expected = if listed.contains(name) { 200 } else { 404 };
                assert_eq!(app.get_as(&key, &path).await.status, expected, "{pattern} {name} {path}");
            }
        }
    }
}
