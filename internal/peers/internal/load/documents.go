package load

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
)

// Documents makes n JSON texts of about size bytes, as an API sends them. They
// are the same each time, and resemble each other without being repeated.
func Documents(n, size int) (all [][]byte) {
	type item struct {
		ID    int      `json:"id"`
		User  string   `json:"user"`
		Price float64  `json:"price"`
		Tags  []string `json:"tags"`
		Seen  bool     `json:"seen"`
	}
	r := rand.New(rand.NewPCG(6455, 7692))
	tags := []string{"new", "sale", "garden", "kitchen", "outdoor", "books", "music"}
	for range n {
		var b []byte
		for items := []item(nil); len(b) < size; {
			items = append(items, item{
				ID: r.IntN(1 << 24), User: fmt.Sprintf("user-%05x", r.IntN(1<<20)), Price: float64(r.IntN(100000)) / 100,
				Tags: []string{tags[r.IntN(len(tags))], tags[r.IntN(len(tags))]}, Seen: r.IntN(2) == 0,
			})
			var err error
			if b, err = json.Marshal(items); err != nil {
				panic(err) // such items can be marshalled
			}
		}
		all = append(all, append(b[:size-1:size-1], ']'))
	}
	return all
}
