"""What is asked and answered: questions, prompts and their ids, records, and the batches of training."""
