//! Nodes that are rebuilt, taken in and taken out while people talk. Every command of docs/operations.md for that is run here.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use rove_client::ids::{Seq, WriterId};
use rove_client::{Client, Conversation, Outcome};
use rove_protocol::message::{ConversationDown, Message as _};
use rove_tests::cluster::command;
use rove_tests::people::{self, sign_up};
use rove_tests::raw::{Raw, text_post};
use rove_tests::talk::{holds, say, texts};
use rove_tests::{Cluster, Server, http3, within_patience};
use serde_json::Value;

fn ready(status: &Value) -> usize {
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.filter(|node| node["state"] == "ready").count()
}

/// Whether `node` waits to be let in, and with an empty directory.
fn waits(status: &Value, node: u64) -> Option<bool> {
    let waiting = status["members"]["waiting"].as_array().expect("a list").iter();
    waiting.filter(|stranger| stranger["node"] == node).find_map(|stranger| stranger["empty"].as_bool())
}

fn member(status: &Value, node: u64) -> &Value {
    let nodes = status["members"]["nodes"].as_array().expect("a list");
    nodes.iter().find(|member| member["node"] == node).expect("it is in the map")
}

/// Runs a command that must succeed, and returns what it printed.
fn done(cluster: &Cluster, node: u64, arguments: &[&str]) -> (String, String) {
    let (code, out, error) = tokio::task::block_in_place(|| cluster.command(node, arguments));
    assert_eq!(code, Some(0), "{arguments:?}: {out}{error}");
    (out, error)
}

/// Runs a command that must be refused, with all of these words.
fn refused(cluster: &Cluster, node: u64, arguments: &[&str], words: &[&str]) {
    let (code, out, error) = tokio::task::block_in_place(|| cluster.command(node, arguments));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {error}");
    assert!(words.iter().all(|word| error.contains(word)), "{arguments:?}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_is_rebuilt_while_people_talk_and_the_old_disk_is_refused_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob) = tokio::join!(sign_up(cluster.node(1), "alice"), sign_up(cluster.node(2), "bob"));
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let (at_alice, at_bob) = tokio::join!(alice.open_conversation(id), bob.open_conversation(id));
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    let mut expected = Vec::new();
    let mut last = Seq(0);
    for number in 0..20 {
        expected.push(format!("before {number}"));
        last = say(&at_alice, &expected[number]).await;
    }

    // What comes back is another machine, at an address that nobody knows.
    let address = cluster.move_to_another_port(3);
    let (starting, old) = cluster.lose_disk(3);
    for node in [1, 2] {
        let noticed = |status: &Value| waits(status, 3) == Some(true);
        let status = cluster.status_until(node, "node 3 being noticed with an empty disk", noticed).await;
        assert!(status["warnings"].to_string().contains("rove-server cluster replace 3"), "{status:#}");
    }
    refused(&cluster, 1, &["replace", "9"], &["node 9 is not a member", "1, 2, 3", "cluster add 9"]);
    refused(&cluster, 1, &["replace", "2"], &["node 2 has not introduced itself", "empty data_dir"]);
    refused(&cluster, 1, &["add", "3"], &["node 3 is a member", "cluster replace 3"]);
    let long = format!("{}:7684", "a".repeat(300));
    refused(&cluster, 1, &["replace", "3", "--address", &long], &["is no address", "host:port"]);

    // People go on meanwhile.
    let config = cluster.node(1).dir().join("rove.toml");
    let given = address.clone();
    let replacing = tokio::task::spawn_blocking(move || command(&config, &["replace", "3", "--address", &given]));
    for number in 0..50 {
        expected.push(format!("meanwhile {number}"));
        last = say(&at_alice, expected.last().unwrap()).await;
    }
    let (code, out, progress) = within_patience("the rebuild", replacing).await.unwrap();
    assert_eq!(code, Some(0), "{progress}");
    assert!(
        out.contains("node 3 has its places again: it is in all 7 partitions, and votes in 7")
            && progress.contains("of 7 partitions done"),
        "{progress}{out}"
    );
    cluster.back(3, starting);
    let whole = |status: &Value| ready(status) == 3 && status["warnings"] == serde_json::json!([]);
    let status = cluster.status_until(3, "node 3 being one of three again", whole).await;
    assert_eq!((&member(&status, 3)["rebuild"], &member(&status, 3)["standing"]), (&1.into(), &"member".into()));
    assert_eq!(member(&status, 3)["address"], address, "not where the configurations say");
    assert_eq!(member(&status, 2)["address"], "");

    // It knows who it is also when it starts again, and the others know where: it could not find them.
    cluster.node_mut(3).kill();
    cluster.forget_the_others(3);
    cluster.node_mut(3).restart();
    cluster.status_until(1, "node 3 being back", whole).await;

    // It votes: with node 2 alone there would be no majority.
    cluster.node_mut(1).kill();
    expected.push("after".to_owned());
    let handle = at_bob.post("after").await.unwrap();
    let outcome = within_patience("the acknowledgement", handle.outcome()).await.unwrap();
    let Outcome::Posted { seq, .. } = outcome else { panic!("{outcome:?}") };
    assert!(seq > last);
    holds(&at_bob, seq).await;
    assert_eq!(texts(&at_bob).await, expected);
    cluster.node_mut(1).restart();
    cluster.status_until(2, "node 1 being back", |status| ready(status) == 3).await;

    // The disk that was thought to be lost turns up.
    cluster.node_mut(3).kill();
    cluster.remember_the_others(3);
    let data = cluster.node(3).dir().join("data");
    std::fs::rename(&data, data.with_extension("new")).unwrap();
    std::fs::rename(&old, &data).unwrap();
    let starting = cluster.node(3).begin();
    let noticed = |status: &Value| waits(status, 3) == Some(false);
    cluster.status_until(1, "the old disk being noticed", noticed).await;
    refused(&cluster, 1, &["replace", "3"], &["node 3 is not empty", "empty one"]);
    let told =
        |_: &Value| cluster.node(3).log().contains("this node does not take part: node 3 has another data directory");
    cluster.status_until(1, "the old disk being told", told).await;
    drop(starting);
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_at_a_node_that_was_rebuilt_is_taken_by_leaders_that_knew_it_before() {
    const WRITER: WriterId = WriterId([3; 16]);
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    cluster.status_until(1, "all three being ready", |status| ready(status) == 3).await;
    let carol = people::credentials(cluster.node(3), "carol").await;
    // As many as find themselves in every partition, as good as surely: its own leaders go when it does, the others' stay.
    let mut conversations = Vec::new();
    {
        let (raw, mut control) = Raw::welcomed(cluster.node(3), &carol).await;
        for number in 0..16 {
            let peer = people::credentials(cluster.node(1), &format!("peer{number}")).await;
            let conversation = control.create_direct(peer.account).await;
            let mut stream = raw.open(conversation, WRITER).await;
            for number in 1..=3 {
                stream.write(text_post(number, "before").to_frame()).await;
                assert!(matches!(stream.next_answer().await, ConversationDown::Posted(_)));
            }
            conversations.push(conversation);
        }
    }
    let (starting, _) = cluster.lose_disk(3);
    cluster.status_until(1, "node 3 being noticed", |status| waits(status, 3) == Some(true)).await;
    done(&cluster, 1, &["replace", "3"]);
    cluster.back(3, starting);
    cluster.status_until(3, "all three being ready again", |status| ready(status) == 3).await;
    let (raw, _control) = Raw::welcomed(cluster.node(3), &carol).await;
    for conversation in conversations {
        let mut stream = raw.open(conversation, WRITER).await;
        stream.write(text_post(4, "after").to_frame()).await;
        assert!(matches!(stream.next_answer().await, ConversationDown::Posted(_)), "{conversation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_is_taken_in_and_another_one_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    cluster.status_until(1, "all three being ready", |status| ready(status) == 3).await;
    let alice = sign_up(cluster.node(3), "alice").await;
    let bob = sign_up(cluster.node(2), "bob").await;
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let talk = alice.open_conversation(id).await.unwrap();
    say(&talk, "one").await;
    refused(&cluster, 1, &["add", "4"], &["node 4 has not introduced itself"]);

    let (starting, address) = cluster.one_more_elsewhere();
    let noticed = |status: &Value| waits(status, 4) == Some(true);
    let status = cluster.status_until(1, "node 4 being noticed", noticed).await;
    assert!(status["warnings"].to_string().contains("rove-server cluster add 4"), "{status:#}");
    let (out, _) = done(&cluster, 1, &["add", "4", "--address", &address, "--json"]);
    let members: Value = serde_json::from_str(&out).unwrap();
    for group in members["groups"].as_array().unwrap() {
        let count = |what: &str| group[what].as_array().unwrap().len();
        assert_eq!((count("voters"), count("learners"), &group["settled"]), (3, 1, &Value::Bool(true)), "{group}");
    }
    let votes = |group: &&Value| group["voters"].as_array().unwrap().contains(&Value::from(4));
    let new = members["groups"].as_array().unwrap().iter().filter(votes).count();
    assert!((1..7).contains(&new), "it votes in some, not in all");
    cluster.joined(starting);
    for node in cluster.ids() {
        let status = cluster.status_until(node, "all four being ready", |status| ready(status) == 4).await;
        assert_eq!(member(&status, 4)["address"], address, "not where its configuration says");
    }
    // Which is where they find it: it could not find them.
    cluster.node_mut(4).kill();
    cluster.forget_the_others(4);
    cluster.node_mut(4).restart();
    cluster.status_until(4, "node 4 being back", |status| ready(status) == 4).await;
    // Whether it votes or follows makes no difference to who is there: so many groups are in all six partitions, as good as surely.
    let carol = sign_up(cluster.node(4), "carol").await;
    for number in 0..24 {
        let group = within_patience("a group", carol.create_group(&format!("group {number}"), &[])).await.unwrap();
        let group = carol.open_conversation(group).await.unwrap();
        let seq = say(&group, "from the fourth node").await;
        holds(&group, seq).await;
        assert_eq!(texts(&group).await, ["from the fourth node"]);
    }
    drop(carol);

    refused(&cluster, 3, &["remove", "3"], &["this is node 3", "another node"]);
    let (out, _) = done(&cluster, 1, &["remove", "3"]);
    assert!(out.contains("node 3 is not a member of the cluster any more"), "{out}");
    let without = |status: &Value| {
        member(status, 3)["standing"] == "removed"
            && status["members"]["groups"][6]["voters"] == serde_json::json!([1, 2, 4])
    };
    cluster.status_until(4, "node 3 being gone", |status| without(status) && ready(status) == 3).await;
    // Alice was there, and is elsewhere.
    let last = say(&talk, "two").await;
    holds(&talk, last).await;
    assert_eq!(texts(&talk).await, ["one", "two"]);
    // It is told, and ends, also when it is started once more.
    tokio::task::block_in_place(|| {
        assert_eq!(cluster.node_mut(3).ended().code(), Some(3), "{}", cluster.node(3).log());
        assert_eq!(cluster.node(3).begin().ended().code(), Some(3), "{}", cluster.node(3).log());
    });
    let log = cluster.node(3).log();
    assert_eq!(
        log.matches("rove-server: this node does not take part: node 3 was removed from the cluster").count(),
        2
    );
    // Empty, it is one more that waits to be taken in.
    std::fs::remove_dir_all(cluster.node(3).dir().join("data")).unwrap();
    let starting = cluster.node(3).begin();
    cluster.status_until(1, "node 3 waiting", |status| waits(status, 3) == Some(true)).await;
    drop(starting);

    // Of three, two must be ready.
    cluster.node_mut(4).kill();
    cluster.status_until(1, "node 4 being missed", |status| ready(status) == 2).await;
    refused(&cluster, 1, &["remove", "2"], &["without node 2 1 of 2 nodes would be ready", "2 are needed", "--force"]);
    // The one that is dead may go.
    done(&cluster, 1, &["remove", "4"]);
    say(&talk, "three").await;
    drop((alice, bob));
}

/// Runs a command that must succeed with `--json`, and returns that: nothing else may be printed.
fn answer(cluster: &Cluster, node: u64, arguments: &[&str]) -> Value {
    let (out, error) = done(cluster, node, &[arguments, &["--json"]].concat());
    assert_eq!(error, "", "{arguments:?}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_answered_in_json_and_a_removal_that_is_forced_waits_until_a_majority_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let whole = |status: &Value| ready(status) == 3 && status["warnings"] == serde_json::json!([]);
    let status = cluster.status_until(1, "all three being ready", whole).await;
    let heir = if status["partitions"][0]["leader"] == 2 { 3 } else { 2 };
    let moved = answer(&cluster, 1, &["transfer-leader", "0", &heir.to_string()]);
    assert_eq!(moved, serde_json::json!({ "partition": 0, "node": heir }));
    let drained = answer(&cluster, 3, &["drain"]);
    assert_eq!(drained, serde_json::json!({ "phase": "drained", "leaders": 0, "sessions": 0 }));
    assert_eq!(answer(&cluster, 3, &["drain", "--undo"])["phase"], "serving");

    let (starting, _) = cluster.lose_disk(3);
    cluster.status_until(1, "node 3 being noticed", |status| waits(status, 3) == Some(true)).await;
    let members = answer(&cluster, 1, &["replace", "3"]);
    assert_eq!((&members["nodes"][2]["rebuild"], &members["groups"][6]["settled"]), (&1.into(), &true.into()));
    cluster.back(3, starting);
    for node in cluster.ids() {
        cluster.status_until(node, "all three being ready again", whole).await;
    }

    // Two are left, one of which is not there.
    let alice = sign_up(cluster.node(1), "alice").await;
    let bob = sign_up(cluster.node(1), "bob").await;
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let talk = alice.open_conversation(id).await.unwrap();
    cluster.node_mut(3).kill();
    cluster.status_until(1, "node 3 being missed", |status| ready(status) == 2).await;
    refused(&cluster, 1, &["remove", "2"], &["1 of 2 nodes would be ready", "say --force"]);
    let config = cluster.node(1).dir().join("rove.toml");
    let removing = tokio::task::spawn_blocking(move || command(&config, &["remove", "2", "--force", "--json"]));
    cluster.status_until(1, "node 2 leaving", |status| member(status, 2)["standing"] == "leaving").await;
    refused(&cluster, 1, &["remove", "3"], &["another change is under way", "wait until it is done"]);
    say(&talk, "nothing is taken away that is needed").await;
    assert!(!removing.is_finished(), "there is no majority without node 2");

    tokio::task::block_in_place(|| cluster.node_mut(3).restart());
    let (code, out, error) = within_patience("the removal", removing).await.unwrap();
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let members: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(members["nodes"][1]["standing"], "removed", "{members}");
    assert_eq!(members["groups"][6]["voters"], serde_json::json!([1, 3]), "{members}");
    tokio::task::block_in_place(|| assert_eq!(cluster.node_mut(2).ended().code(), Some(3)));
    say(&talk, "the two go on").await;
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_taken_in_while_the_nodes_run_two_releases_except_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    cluster.status_until(1, "all three being ready", |status| ready(status) == 3).await;
    let (alice, _bob, talk) = talk_alone(&cluster).await;
    tokio::task::block_in_place(|| {
        assert!(cluster.node_mut(3).terminate().success());
        let starting = cluster.node(3).begin_upgraded();
        cluster.back(3, starting);
    });
    let starting = cluster.one_more();
    let two = "the nodes run different versions: 0.1.0, 0.1.0-next";
    let mixed = |status: &Value| ready(status) == 3 && status["warnings"].to_string().contains(two);
    for node in [1, 3] {
        cluster.status_until(node, "two releases", mixed).await;
    }
    cluster.status_until(1, "node 4 being noticed", |status| waits(status, 4) == Some(true)).await;
    let why = "the nodes run different versions (0.1.0, 0.1.0-next): end the upgrade first, or say --force";
    refused(&cluster, 1, &["add", "4"], &[why]);
    refused(&cluster, 3, &["remove", "2"], &[why]);
    done(&cluster, 1, &["add", "4", "--force"]);
    cluster.joined(starting);
    cluster.status_until(4, "all four being ready", |status| ready(status) == 4).await;
    let last = say(&talk, "four of two releases").await;
    holds(&talk, last).await;
    assert_eq!(texts(&talk).await, ["alone", "four of two releases"]);
    drop(alice);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_its_own_says_what_a_change_of_nodes_takes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let config = dir.path().join("rove.toml");
    for (arguments, words) in [
        (&["add", "2"][..], "this node is alone: give it a [cluster] in its configuration first"),
        (&["remove", "2", "--force"], "this node is alone: give it a [cluster] in its configuration first"),
        (&["drain"], "no other node is ready to take over"),
        (&["drain", "--json"], "to stop this node all the same, send it SIGTERM"),
    ] {
        let (code, out, error) = tokio::task::block_in_place(|| command(&config, arguments));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert_eq!(http3::get_text(&server, "/readyz").await, (200, "ready\n".to_owned()));
}

/// Two people at the only node there is, and the first words of one to the other.
async fn talk_alone(cluster: &Cluster) -> (Client, Client, Conversation) {
    let alice = sign_up(cluster.node(1), "alice").await;
    let bob = sign_up(cluster.node(1), "bob").await;
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let talk = alice.open_conversation(id).await.unwrap();
    say(&talk, "alone").await;
    (alice, bob, talk)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_becomes_three() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_with(dir.path(), 1, "");
    let (_alice, bob, talk) = talk_alone(&cluster).await;
    for node in [2, 3] {
        let starting = cluster.one_more();
        let what = format!("node {node} being noticed");
        cluster.status_until(1, &what, |status| waits(status, node) == Some(true)).await;
        done(&cluster, 1, &["add", &node.to_string()]);
        cluster.joined(starting);
    }
    cluster.status_until(2, "all three being ready", |status| ready(status) == 3).await;
    say(&talk, "together").await;
    // Whoever is connected is told of the new nodes when it has to go, or connects again.
    done(&cluster, 1, &["drain"]);
    cluster.node_mut(1).kill();
    let last = say(&talk, "without the first").await;
    holds(&talk, last).await;
    assert_eq!(texts(&talk).await, ["alone", "together", "without the first"]);
    drop(bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ran_alone_forms_no_cluster_with_nodes_that_have_nothing_of_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_with(dir.path(), 1, "");
    let (_alice, bob, talk) = talk_alone(&cluster).await;
    // As it would be without a [cluster], which is then written for two nodes at once.
    cluster.node_mut(1).kill();
    std::fs::remove_file(cluster.node(1).dir().join("data/cluster.json")).unwrap();
    let config = cluster.node(1).dir().join("rove.toml");
    let alone = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, alone + "[[cluster.peers]]\nnode = 2\naddress = \"127.0.0.1:1\"\n").unwrap();
    tokio::task::block_in_place(|| cluster.node_mut(1).restart());

    let starting = cluster.one_more();
    cluster.status_until(1, "node 2 being noticed", |status| waits(status, 2) == Some(true)).await;
    done(&cluster, 1, &["add", "2"]);
    cluster.joined(starting);
    let last = say(&talk, "together").await;
    holds(&talk, last).await;
    assert_eq!(texts(&talk).await, ["alone", "together"]);
    drop(bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_forgot_its_cluster_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    cluster.node_mut(3).kill();
    std::fs::remove_file(cluster.node(3).dir().join("data/cluster.json")).unwrap();
    let starting = cluster.node(3).begin();
    let told = |_: &Value| {
        let log = cluster.node(3).log();
        log.contains("its cluster.json does not say any more to which") && log.contains("rove-server cluster replace 3")
    };
    cluster.status_until(1, "node 3 refusing to start", told).await;
    drop(starting);
}
