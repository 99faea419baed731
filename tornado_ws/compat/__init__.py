"""What has to do with other versions: `tornado.websocket` itself, and the versions of Tornado."""
