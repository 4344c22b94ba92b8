//! `GET` and `POST /api/search`: modes, parameters, filters, and that an answer depends on nothing but the question and
//! the documents.

use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::harness::{
    TestApp,
    client::{each, texts},
    fixtures::{GUIDE, borrowed, many_pages},
    redact,
};

/// A server that has the guide.
async fn with_guide() -> TestApp {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_the_best_passage_in_every_mode() {
    let app = with_guide().await;
    for mode in ["hybrid", "vector", "keyword"] {
        let answer =
            app.search(&format!("query=connection+pool+compiler&mode={mode}&match_count=2&explain=true")).await;
        assert_json_snapshot!(format!("answer_{mode}"), redact(&answer));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returns_five_results_unless_asked_for_another_number() {
    let app = with_guide().await;
    for (parameters, count) in [("", 5), ("&match_count=1", 1), ("&match_count=3", 3)] {
        let answer = app.search(&format!("query=the+text+of+a+call&mode=vector{parameters}")).await;
        assert_eq!(answer["count"], count, "{parameters}");
        assert_eq!(each(&answer, "chunk_id").len(), count, "{parameters}");
        assert_eq!(answer["has_more"], true, "{parameters}");
    }
    let all = app.search("query=the+text+of+a+call&mode=vector&match_count=100").await;
    assert_eq!(all["has_more"], false);
    assert_eq!(all["next_cursor"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_index_answers_with_an_empty_list() {
    let app = TestApp::start().await;
    let answer = app.search("query=anything").await;
    assert_json_snapshot!("answer_of_an_empty_index", redact(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_no_page_has_find_nothing_by_keyword() {
    let app = with_guide().await;
    let answer = app.search("query=zymurgy+quokka&mode=keyword").await;
    assert_eq!((&answer["count"], &answer["has_more"], &answer["degraded"]), (&json!(0), &json!(false), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_and_highlight_decide_how_much_of_a_passage_returns() {
    let app = with_guide().await;
    let first = async |parameters: &str| {
        let answer = app.search(&format!("query=exponential+backoff&mode=keyword{parameters}")).await;
        answer["results"][0].clone()
    };
    let full = first("").await;
    assert!(full["content"].as_str().unwrap().contains("exponential backoff"));
    assert!(full["snippet"].is_string());
    assert_eq!(full["highlights"], Value::Null);
    let snippet = first("&content=snippet").await;
    assert_eq!((&snippet["content"], &snippet["snippet"]), (&Value::Null, &full["snippet"]));
    let none = first("&content=none&highlight=true").await;
    assert_eq!((&none["content"], &none["snippet"], &none["highlights"]), (&Value::Null, &Value::Null, &Value::Null));
    let marked = first("&content=snippet&highlight=true").await;
    assert_eq!(marked_words(&marked), ["exponential", "backoff"]);
}

/// The marked parts of a result's snippet.
fn marked_words(result: &Value) -> Vec<String> {
    let snippet: Vec<char> = result["snippet"].as_str().unwrap().chars().collect();
    let place = |mark: &Value, end: &str| usize::try_from(mark[end].as_u64().unwrap()).unwrap();
    let marks = result["highlights"].as_array().unwrap().iter();
    marks.map(|mark| snippet[place(mark, "start")..place(mark, "end")].iter().collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_by_source_and_by_pattern() {
    let app = TestApp::start().await;
    for source in ["tokio", "tokio-util", "axum"] {
        app.ingest(&[("page.md", "# Runtime\n\nThe runtime of a server.\n")], source, "1.0.0").await;
    }
    for (filter, expected) in [
        ("", vec!["axum", "tokio", "tokio-util"]),
        ("&source=tokio", vec!["tokio"]),
        ("&source=tokio*", vec!["tokio", "tokio-util"]),
        ("&source=*util", vec!["tokio-util"]),
        ("&source=axum&source=tokio", vec!["axum", "tokio"]),
        ("&source=axum&source=a*", vec!["axum"]),
        ("&source=*", vec!["axum", "tokio", "tokio-util"]),
    ] {
        for mode in ["hybrid", "vector", "keyword"] {
            let answer = app.search(&format!("query=runtime&mode={mode}{filter}")).await;
            let mut found = texts(&answer, "source_id");
            found.sort();
            assert_eq!(found, expected, "{mode} {filter}");
        }
    }
    let answer = app.search("query=runtime&source=axum&source=t*").await;
    assert_eq!(answer["source_filter"], json!(["axum", "t*"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_by_version_and_never_substitutes_one() {
    let app = TestApp::start().await;
    for version in ["4.9.0", "5.2.0", "5.1.0", "6.0.0-beta.1"] {
        let text = format!("# Bundling\n\nHow the bundler of {version} splits chunks.\n");
        app.ingest(&[("bundling.md", &text)], "vite", version).await;
    }
    let versions = async |parameters: &str| texts(&app.search(&format!("query=bundler{parameters}")).await, "version");
    for (asked, found) in [
        ("", "5.2.0"),
        ("&version=latest", "5.2.0"),
        ("&version=5.x", "5.2.0"),
        ("&version=5.1.x", "5.1.0"),
        ("&version=4.9.0", "4.9.0"),
        ("&version=6.0.0-beta.1", "6.0.0-beta.1"),
        ("&version=4.x&source=vite", "4.9.0"),
    ] {
        assert_eq!(versions(asked).await, [found], "{asked}");
    }
    for missing in ["&version=6.x", "&version=5", "&version=5.3.0&source=vite"] {
        let reply = app.get(&format!("/api/search?query=bundler{missing}")).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{missing}");
    }
    let changed = app.patch("/api/sources/vite", &json!({ "default_version": "4.x" })).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text());
    assert_eq!(versions("").await, ["4.9.0"]);
    assert_eq!(versions("&version=latest").await, ["5.2.0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_leaves_few_passages_still_returns_as_many_as_asked_for() {
    let app = TestApp::start().await;
    let (many, few) = (many_pages(300), many_pages(12));
    app.ingest(&borrowed(&many), "many", "1.0.0").await;
    app.ingest(&borrowed(&few), "few", "1.0.0").await;
    for mode in ["hybrid", "vector", "keyword"] {
        // The first asks for the nearest of the other source; the second walks the index also where that is dearer.
        for parameters in ["query=common+own250", "query=common+own250&ef_search=1"] {
            let answer = app.search(&format!("{parameters}&mode={mode}&source=few&match_count=12")).await;
            assert_eq!(answer["count"], 12, "{mode} {parameters}");
            assert!(texts(&answer, "source_id").iter().all(|source| source == "few"));
        }
        // Most of the passages: now the index is walked, and passes over the other source's.
        let answer = app.search(&format!("query=common+own7&mode={mode}&source=many&match_count=100")).await;
        assert_eq!(answer["count"], 100, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thresholds_keep_what_meets_one_of_them() {
    let app = with_guide().await;
    let all = app.search("query=database+connections&match_count=100&explain=true").await;
    let explained = each(&all, "explain");
    let meets = |least_similarity: f64, least_score: f64| {
        let above = |value: &Value, least: f64| value.as_f64().is_some_and(|value| value >= least);
        let meets = |hit: &&Value| {
            above(&hit["vector_similarity"], least_similarity) || above(&hit["keyword_score"], least_score)
        };
        explained.iter().filter(meets).count()
    };
    let middle = |field: &str| {
        let mut values: Vec<f64> = explained.iter().filter_map(|hit| hit[field].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (similarity, score) = (middle("vector_similarity"), middle("keyword_score"));
    for (parameters, expected) in [
        (format!("min_similarity={similarity}"), meets(similarity, f64::INFINITY)),
        (format!("min_keyword_score={score}"), meets(f64::INFINITY, score)),
        (format!("min_similarity={similarity}&min_keyword_score={score}"), meets(similarity, score)),
        ("min_similarity=-1".to_owned(), explained.len()),
        ("min_keyword_score=1000".to_owned(), 0),
        ("min_similarity=1".to_owned(), 0),
    ] {
        let answer = app.search(&format!("query=database+connections&match_count=100&{parameters}")).await;
        assert_eq!(answer["count"], expected, "{parameters}");
    }
    assert!((1..explained.len()).contains(&meets(similarity, f64::INFINITY)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alpha_moves_between_words_and_vectors_and_rrf_ranks_by_places() {
    let app = with_guide().await;
    let order = async |parameters: &str| {
        let answer = app.search(&format!("query=error+of+a+call&match_count=100&{parameters}")).await;
        each(&answer, "chunk_id")
    };
    assert_eq!(order("alpha=1").await, order("mode=vector").await);
    let words = order("mode=keyword").await;
    assert!(words.len() > 1);
    assert_eq!(order("alpha=0").await[..words.len()], words);
    let fused = app.search("query=error+of+a+call&fusion=rrf&explain=true").await;
    let scores: Vec<f64> = each(&fused, "score").iter().map(|score| score.as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_and_approximate_search_agree_on_few_documents() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(120)), "many", "1.0.0").await;
    let nearest = async |parameters: &str| {
        let answer = app.search(&format!("query=common+own77&mode=vector&match_count=10{parameters}")).await;
        each(&answer, "similarity")
    };
    let exact = nearest("&exact=true").await;
    assert_eq!(exact.len(), 10);
    assert_eq!(nearest("").await, exact);
    assert_eq!(nearest("&ef_search=400").await, exact);
    let first = app.search("query=common+own77&mode=vector&exact=true").await;
    assert_eq!(first["results"][0]["title"], "Page 77");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_and_post_answer_with_the_same_bytes_every_time() {
    let app = with_guide().await;
    let path = "/api/search?query=connection+pool&match_count=3&source=guide&source=g*&alpha=0.25&exact=true&explain=true\
                &highlight=true&content=snippet&min_similarity=0.1&mode=hybrid&fusion=weighted&version=1.x&ef_search=50";
    let body = json!({
        "query": "connection pool", "match_count": 3, "source": ["guide", "g*"], "alpha": 0.25, "exact": true,
        "explain": true, "highlight": true, "content": "snippet", "min_similarity": 0.1, "mode": "hybrid",
        "fusion": "weighted", "version": "1.x", "ef_search": 50,
    });
    let first = app.get(path).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text());
    assert_eq!(first.header("content-type"), "application/json");
    for _ in 0..3 {
        assert_eq!(app.get(path).await.body, first.body);
        assert_eq!(app.post("/api/search", &body).await.body, first.body);
    }
    let other_replica = TestApp::builder().start_beside(&app).await;
    assert_eq!(other_replica.get(path).await.body, first.body);
    let nulls = app.post("/api/search", &json!({ "query": "pool", "alpha": null, "cursor": null })).await;
    assert_eq!(nulls.body, app.get("/api/search?query=pool").await.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_one_source_changes_no_answer_of_another() {
    let app = with_guide().await;
    let path = "/api/search?query=connection+pool+timeout&source=guide&explain=true";
    let before = app.get(path).await.body;
    let other = "# Connection pool timeout\n\nconnection connection pool pool timeout\n";
    app.ingest(&[("a.md", other), ("b.md", other)], "other", "1.0.0").await;
    assert_eq!(app.get(path).await.body, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_text_of_any_script() {
    let app = with_guide().await;
    for (query, mode) in [
        ("東京", "vector"),
        ("Zürich", "keyword"),
        ("café", "keyword"),
        ("CAFÉ Zürich", "hybrid"),
        ("🚀 emoji", "hybrid"),
        ("e\u{301}cole\u{200d}", "hybrid"),
        ("\u{202e}rtl 'quoted\" \\ %_ $1 ; drop table pages", "hybrid"),
    ] {
        let reply = app.post("/api/search", &json!({ "query": query, "mode": mode })).await;
        assert_eq!(reply.status, StatusCode::OK, "{query}: {}", reply.text());
        assert_eq!(reply.json()["query"], query);
    }
    for query in ["Zürich", "café", "CAFÉ"] {
        let reply = app.post("/api/search", &json!({ "query": query, "mode": "keyword" })).await;
        assert_eq!(texts(&reply.json(), "url"), ["unicode.md"], "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_technical_words_whole_and_in_parts() {
    let app = with_guide().await;
    for query in ["E0308", "e0308", "--edition", "tokio::task::spawn_blocking", "spawn_blocking", "spawn blocking"] {
        let reply = app.post("/api/search", &json!({ "query": query, "mode": "keyword" })).await;
        assert_eq!(reply.json()["results"][0]["url"], "errors.md", "{query}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_trimmed_and_says_when_it_was_cut() {
    let app = with_guide().await;
    assert_eq!(app.search("query=++pool%0A").await["query"], "pool");
    let longest = "pool ".repeat(400);
    let reply = app.post("/api/search", &json!({ "query": longest })).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}
