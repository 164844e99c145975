"""Windows to subscribers: message schemas, outbox on disk, publisher, embedded broker."""
