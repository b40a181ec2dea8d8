use tokio::time::advance;

use super::*;

fn peer() -> Arc<Peer> {
    Peer::for_test(([127, 0, 0, 1], 7).into())
}

#[test]
fn a_connection_without_calls_is_idle() {
    let peer = peer();
    assert!(peer.idle_for().is_some());
    let call = peer.begin_call(Duration::from_secs(60));
    let watch = peer.begin_infrastructure_call(true);
    assert_eq!(peer.open_streams(), 1);
    drop(call);
    assert_eq!(peer.idle_for(), None);
    drop(watch);
    assert!(peer.idle_for().is_some());
    assert_eq!(peer.open_streams(), 0);
}

#[test]
fn a_call_past_its_deadline_stalls_the_connection() {
    let peer = peer();
    let _watch = peer.begin_infrastructure_call(true);
    let new = peer.begin_call(Duration::from_secs(60));
    assert!(!peer.is_stalled());
    let expire = |call: &OpenCall| call.set_deadline(Instant::now());
    let old = peer.begin_call(Duration::from_secs(60));
    expire(&old);
    assert!(peer.is_stalled());
    old.progress();
    assert!(!peer.is_stalled());
    expire(&new);
    drop(new);
    assert!(!peer.is_stalled());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_behind_others_stalls_the_connection_only_if_none_is_read() {
    let peer = peer();
    let (read, queued) = (
        peer.begin_call(Duration::from_secs(60)),
        peer.begin_call(Duration::from_secs(60)),
    );
    queued.set_deadline(Instant::now());
    assert!(peer.is_stalled());
    queued.queued();
    read.read(1);
    assert!(!peer.is_stalled());
    advance(Duration::from_secs(60)).await;
    read.read(1);
    assert!(peer.is_stalled(), "it waits for too long");
    drop(queued);
    assert!(!peer.is_stalled());
    read.set_deadline(Instant::now());
    assert!(peer.is_stalled());
}

#[tokio::test(start_paused = true)]
async fn a_stream_stalls_the_connection_only_if_no_call_is_read() {
    let peer = peer();
    let read = peer.begin_call(Duration::from_secs(60));
    let unread = peer.begin_stream(Duration::from_secs(60));
    unread.progress();
    advance(peer.stall_timeout).await;
    assert!(!peer.is_stalled(), "there is nothing to read");
    unread.wrote(2);
    assert!(!peer.is_stalled(), "the client has time for it");
    for _ in 0..100 {
        advance(Duration::from_secs(9)).await;
        read.read(1);
        assert!(!peer.is_stalled());
    }
    drop(read);
    advance(peer.stall_timeout).await;
    assert!(!peer.is_stalled(), "the client may be at work");
    advance(peer.stall_timeout).await;
    assert!(peer.is_stalled());
    unread.read(1);
    assert!(!peer.is_stalled());
}

#[test]
fn a_connection_that_is_not_read_is_not_stalled() {
    let peer = peer();
    let call = peer.begin_call(Duration::from_secs(60));
    call.set_deadline(Instant::now());
    let work = call.begin_work();
    assert!(!peer.is_stalled());
    drop(work);
    assert!(peer.is_stalled());
}

#[tokio::test(start_paused = true)]
async fn a_paused_connection_is_stalled_only_some_time_after_the_pause() {
    let peer = peer();
    let call = peer.begin_call(Duration::from_secs(60));
    call.set_deadline(Instant::now());
    assert!(peer.is_stalled());
    let pause = Duration::from_secs(60);
    peer.load.pause_until(Instant::now() + pause);
    advance(pause).await;
    assert!(!peer.is_stalled());
    advance(peer.stall_timeout / 2).await;
    assert!(!peer.is_stalled());
    advance(peer.stall_timeout).await;
    assert!(peer.is_stalled());
}
