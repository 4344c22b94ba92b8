//! What a publish counts (document frequencies, pages, chunks, words, code examples) equals counting all rows anew, after any
//! series of imports: it counts only what changed since the published generation.

use std::{collections::BTreeMap, fmt::Write};

use crate::harness::TestApp;

/// The first version of the counting, which read every row of the generation.
const COUNT_ALL: &str = "select g.id,
    array[g.pages, g.words, g.chunks, g.chunks_without_embedding, g.code_examples] as kept,
    array[
        (select count(*) from pages where version_id = g.version_id and born <= g.id and died > g.id),
        (select coalesce(sum(words), 0) from pages where version_id = g.version_id and born <= g.id and died > g.id),
        (select count(*) from chunks where version_id = g.version_id and born <= g.id and died > g.id),
        (select count(*) from chunks c where c.version_id = g.version_id and c.born <= g.id and c.died > g.id
         and not exists (select from chunk_vectors v where v.chunk_id = c.id)),
        (select count(*) from code_examples where version_id = g.version_id and born <= g.id and died > g.id)
    ]::bigint[] as counted
 from generations g where g.status = 'published' order by g.id";

/// Terms whose kept frequency is not that of the rows.
const WRONG_TERMS: &str = "select count(*) from (
    select g.id, term, count(*) as chunks
    from generations g join chunk_words w on w.version_id = g.version_id and w.born <= g.id and w.died > g.id, unnest(terms) term
    where g.status = 'published' group by g.id, term
 ) counted
 full join (
    select t.* from generation_terms t join generations g on g.id = t.generation_id where g.status = 'published'
 ) kept on kept.generation_id = counted.id and kept.term = counted.term
 where kept.chunks is distinct from counted.chunks";

/// A page of a few sections, some with code.
fn page(random: &mut fastrand::Rng) -> String {
    let mut text = format!("# Page {}\n\n", random.u8(..));
    for section in 0..random.usize(1..5) {
        let words: Vec<String> = (0..random.usize(5..200)).map(|_| format!("word{}", random.u8(..))).collect();
        let _ = write!(text, "## Section {section}\n\n{}\n\n", words.join(" "));
        if random.bool() {
            let _ = write!(text, "```rust\nlet value{} = {};\n```\n\n", random.u8(..), random.u8(..));
        }
    }
    text
}

/// Changes, adds and removes some pages.
fn change(pages: &mut BTreeMap<String, String>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..6) {
        let path = format!("page-{}.md", random.u8(..12));
        if random.u8(..4) == 0 {
            pages.remove(&path);
        } else {
            pages.insert(path, page(random));
        }
    }
    pages.entry("always.md".to_owned()).or_insert_with(|| "# Always\n\nHere.\n".to_owned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_counts_what_counting_every_row_gives() {
    let app = TestApp::start().await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut sources: [BTreeMap<String, String>; 2] = Default::default();
    let mut without_embedding = 0;
    for round in 0..16 {
        let nth = random.usize(..2);
        change(&mut sources[nth], &mut random);
        if round % 4 == 1 {
            app.probe.fail_next(2);
        }
        let files: Vec<(&str, &str)> = sources[nth].iter().map(|(path, text)| (&**path, &**text)).collect();
        app.ingest(&files, ["one", "two"][nth], "1.0.0").await;
        let mut connection = app.database.connect().await;
        let counts: Vec<(i64, Vec<i64>, Vec<i64>)> =
            sqlx::query_as(COUNT_ALL).fetch_all(&mut connection).await.unwrap();
        for (generation, kept, counted) in counts {
            assert_eq!(kept, counted, "round {round}, generation {generation}");
            without_embedding += kept[3];
        }
        let wrong: i64 = sqlx::query_scalar(WRONG_TERMS).fetch_one(&mut connection).await.unwrap();
        assert_eq!(wrong, 0, "round {round}");
    }
    assert!(without_embedding > 0, "some chunks had no vector");
    assert!(app.count("select count(*) from generations where status = 'retired'").await > 5);
    assert!(app.count("select count(*) from pages where died < 9223372036854775807").await > 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_count_is_seen() {
    let app = TestApp::start().await;
    app.ingest(&[("page.md", "# Page\n\nSome words.\n")], "one", "1.0.0").await;
    let wrong = async || {
        let mut connection = app.database.connect().await;
        sqlx::query_scalar::<_, i64>(WRONG_TERMS).fetch_one(&mut connection).await.unwrap()
    };
    assert_eq!(wrong().await, 0);
    app.execute(
        "update generation_terms set chunks = chunks + 1 where term = (select min(term) from generation_terms)",
    )
    .await;
    assert_eq!(wrong().await, 1);
    app.execute("delete from generation_terms").await;
    assert!(wrong().await > 1);
}
