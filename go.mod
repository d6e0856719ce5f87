module github.com/rawws/websocket

go 1.25.0
