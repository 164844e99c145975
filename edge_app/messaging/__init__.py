"""Results over MQTT: typed messages, an outbox on disk, the link to the broker, and a broker where there is none."""
