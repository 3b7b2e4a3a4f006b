"""The monitor in other people's trainers: `hugging_face` and `lightning`, each importing its library itself."""
