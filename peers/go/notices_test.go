package peer

import "testing"

func TestNoticesThatAPeerCanMakeManyOfAreBounded(t *testing.T) {
	started, release, got := make(chan struct{}), make(chan struct{}), map[NoticeKind]int{}
	var n notices
	n.start(func(notice Notice) {
		if notice.Kind == Refused {
			close(started)
			<-release
			return
		}
		got[notice.Kind]++
	})
	n.add(Notice{Kind: Refused})
	<-started
	for range 2 * maxNotices {
		n.add(Notice{Kind: PeerSubscribed})
	}
	n.add(Notice{Kind: PeerDown})
	n.stop()
	close(release)
	<-n.done
	if got[PeerSubscribed] != maxNotices || got[PeerDown] != 1 {
		t.Errorf("got %v, wanted %d of subscriptions and the end", got, maxNotices)
	}
}
