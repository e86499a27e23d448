package idle

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(time.Minute)
		start := time.Now()
		time.Sleep(time.Minute - time.Nanosecond)
		if c.Expired() || !c.Deadline().Equal(start.Add(time.Minute)) {
			t.Errorf("expired before its time, or at %v", c.Deadline())
		}
		time.Sleep(time.Nanosecond)
		if !c.Expired() {
			t.Error("not expired at its limit")
		}
		c.Moved()
		if c.Expired() || !c.Deadline().Equal(start.Add(2*time.Minute)) {
			t.Error("expired when something has just moved")
		}
		if c.Tick() != 15*time.Second || New(time.Hour).Tick() != maxTick {
			t.Errorf("ticks of %v, and of %v for an hour", c.Tick(), New(time.Hour).Tick())
		}
		if d := New(time.Second).WriteDeadline(start); !d.Equal(start.Add(WriteTimeout)) {
			t.Errorf("a write may take until %v", d)
		}
		if d := New(time.Hour).WriteDeadline(start); !d.Equal(start.Add(time.Hour)) {
			t.Errorf("a write may take until %v", d)
		}
		none := New(0)
		time.Sleep(10000 * time.Hour)
		if none.Expired() || !none.Deadline().IsZero() || none.Tick() != 0 || !none.WriteDeadline(start).IsZero() {
			t.Error("no limit is one")
		}
	})
}

func TestWatch(t *testing.T) {
	for name, tt := range map[string]struct {
		limit time.Duration
		do    func(*Clock, *Watch)
		want  time.Duration // 0: never
	}{
		"silence": {time.Minute, func(*Clock, *Watch) {}, time.Minute},
		"moving": {time.Minute, func(c *Clock, _ *Watch) {
			for range 10 {
				time.Sleep(50 * time.Second)
				c.Moved()
			}
		}, 560 * time.Second},
		"held": {time.Minute, func(c *Clock, _ *Watch) {
			c.Hold()
			time.Sleep(1000 * time.Second)
			c.Release()
		}, 1060 * time.Second},
		"no limit":             {0, func(*Clock, *Watch) {}, 0},
		"stopped":              {time.Minute, func(_ *Clock, w *Watch) { time.Sleep(time.Second); w.Stop(); w.Shorten(1) }, 0},
		"shortened":            {time.Hour, func(_ *Clock, w *Watch) { time.Sleep(time.Second); w.Shorten(time.Minute) }, 61 * time.Second},
		"shortened from none":  {0, func(_ *Clock, w *Watch) { time.Sleep(time.Second); w.Shorten(time.Minute) }, 61 * time.Second},
		"shorter than that":    {time.Minute, func(_ *Clock, w *Watch) { time.Sleep(time.Second); w.Shorten(time.Hour) }, time.Minute},
		"shortened and moving": {time.Hour, func(c *Clock, w *Watch) { w.Shorten(time.Minute); time.Sleep(time.Second); c.Moved() }, 61 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				got := make(chan time.Duration, 2)
				c := New(tt.limit)
				w := c.Watch(func() { got <- time.Since(start) })
				tt.do(c, w)
				time.Sleep(10000 * time.Hour)
				select {
				case d := <-got:
					if d != tt.want {
						t.Errorf("after %v, want %v", d, tt.want)
					}
				default:
					if tt.want != 0 {
						t.Errorf("never, want %v", tt.want)
					}
				}
				if len(got) > 0 {
					t.Error("called twice")
				}
				w.Stop()
			})
		})
	}
}
