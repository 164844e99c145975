"""What teaching a network takes beside the network: schedule, losses, stages, state, history, progress, machines."""
