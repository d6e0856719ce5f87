package browser

import (
	"testing"
)

// Two nodes in processes of their own, a browser on each, and a NATS server
// that is killed and started again.
func TestClusterPages(t *testing.T) {
	const module = root + "/examples/cluster"
	nats, cluster := build(t, module, "github.com/nats-io/nats-server/v2"), build(t, module, ".")
	natsHost, natsPort := split(t, freeAddr(t))
	startNATS := func() *program { return start(t, natsHost+":"+natsPort, nats, "-a", natsHost, "-p", natsPort) }
	server := startNATS()
	node := func(name, addr string) *program {
		return start(t, addr, cluster, "-node", name, "-addr", addr, "-nats", "nats://"+natsHost+":"+natsPort)
	}
	addrB := freeAddr(t)
	a, b := node("a", freeAddr(t)), node("b", addrB)
	ada, bob := enter(t, a.url, "Ada"), enter(t, b.url, "Боб")
	ada.meets("Ada,Боб")
	bob.meets("Ada,Боб")
	ada.say("hello over there 👋")
	bob.reads("Ada", "hello over there 👋")
	bob.say("привет")
	ada.reads("Боб", "привет")
	ada.screenshot("together-a")
	bob.screenshot("together-b")

	server.kill()
	for _, page := range []*tab{ada, bob} {
		page.wait(`!document.getElementById("cut-off").hidden && !document.getElementById("send").disabled`)
	}
	ada.meets("Ada") // those who read her
	bob.meets("Боб")
	ada.say("does anybody read this?")
	ada.reads("Ada", "does anybody read this?") // she is told that only her node does
	bob.reads("Боб", "привет")
	ada.screenshot("cut-off-a")
	bob.screenshot("cut-off-b")

	startNATS()
	for _, page := range []*tab{ada, bob} {
		page.wait(`document.getElementById("cut-off").hidden`)
		page.meets("Ada,Боб")
	}
	ada.say("and now?")
	bob.reads("Ada", "and now?")
	bob.say("now I do")
	ada.reads("Боб", "now I do")
	ada.screenshot("healed-a")
	bob.screenshot("healed-b")

	// A node that ends well says so, and its people are gone for the others until
	// it is there again.
	b.terminate()
	ada.meets("Ada")
	bob.wait(`!document.getElementById("trouble").hidden`)
	bob.screenshot("gone-b")
	node("b", addrB)
	bob.meets("Ada,Боб")
	ada.meets("Ada,Боб")
	bob.say("back")
	ada.reads("Боб", "back")
}
