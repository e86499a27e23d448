package broadcast

import (
	"sync"
	"testing"
)

func drain(s *Subscription[int]) (got []int, closed bool) {
	for {
		select {
		case e, ok := <-s.Events():
			if !ok {
				return got, true
			}
			got = append(got, e)
		default:
			return got, false
		}
	}
}

func TestEverySubscriberHearsWhatCameAfterIt(t *testing.T) {
	var topic Topic[int]
	topic.Publish(1)
	a := topic.Subscribe(8)
	topic.Publish(2)
	b := topic.Subscribe(8)
	topic.Publish(3)
	b.Close()
	b.Close()
	topic.Publish(4)
	if got, closed := drain(a); len(got) != 3 || got[0] != 2 || got[2] != 4 || closed {
		t.Errorf("the first subscriber has %v, closed: %v", got, closed)
	}
	if got, closed := drain(b); len(got) != 1 || got[0] != 3 || !closed {
		t.Errorf("the second subscriber has %v, closed: %v", got, closed)
	}
}

func TestAFullSubscriptionLosesTheNewest(t *testing.T) {
	var topic Topic[int]
	s, other := topic.Subscribe(0), topic.Subscribe(5)
	for i := range 5 {
		topic.Publish(i)
	}
	if got, _ := drain(s); len(got) != 1 || got[0] != 0 || s.Lost() != 4 {
		t.Errorf("a subscription of one has %v and lost %d", got, s.Lost())
	}
	if got, _ := drain(other); len(got) != 5 || other.Lost() != 0 {
		t.Errorf("the other has %v and lost %d", got, other.Lost())
	}
}

func TestClose(t *testing.T) {
	var topic Topic[int]
	s := topic.Subscribe(2)
	topic.Publish(1)
	topic.Close()
	topic.Close()
	topic.Publish(2)
	s.Close()
	if got, closed := drain(s); len(got) != 1 || !closed {
		t.Errorf("%v, closed: %v", got, closed)
	}
	if _, closed := drain(topic.Subscribe(1)); !closed {
		t.Error("a subscription to a closed topic is open")
	}
}

func TestNobodyListeningCostsNothing(t *testing.T) {
	var topic Topic[[4]uint64]
	if n := testing.AllocsPerRun(100, func() { topic.Publish([4]uint64{1}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Subscribers come and go while others publish and the topic closes; the race detector and the channels' own rules judge.
func TestTogether(t *testing.T) {
	var topic Topic[int]
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 1000 {
				topic.Publish(i)
			}
		})
		group.Go(func() {
			for range 200 {
				s := topic.Subscribe(1)
				drain(s)
				s.Close()
			}
		})
	}
	last := topic.Subscribe(1)
	group.Wait()
	topic.Close()
	if _, closed := drain(last); !closed {
		t.Error("the last subscription is open")
	}
	if n := topic.subscribers.Load(); n != 0 {
		t.Errorf("%d subscribers are left", n)
	}
}
