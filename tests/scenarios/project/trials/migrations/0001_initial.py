from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Effect",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("message_id", models.BigIntegerField()),
                ("queue", models.CharField(max_length=80)),
                ("attempt", models.SmallIntegerField()),
                ("worker", models.IntegerField(help_text="Process id.")),
            ],
        ),
    ]
